//! One thread per shard: pinned, with a glommio executor in which the driver is the main task.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use glommio::{Latency, LocalExecutor, LocalExecutorBuilder, Placement, Shares, TaskQueueHandle};
use ring::{ShardId, Waker};
use shard::ListenerId;

use crate::ReactorSettings;
use crate::core::Core;
use crate::counters::ReactorCounters;
use crate::driver::{Control, Driver, DriverSetup, TickEnd};
use crate::filters::FilterTable;
use crate::listener::BoundListener;
use crate::probe::Features;
use crate::ring_table::{RingTable, StartError};
use crate::wake::WakeHandle;

/// Memory of a glommio executor for its own I/O, of which there is none. The default would touch 10 MB.
const GLOMMIO_IO_BYTES: usize = 64 << 10;
/// Entries of glommio's own rings.
const GLOMMIO_RING_DEPTH: usize = 8;
/// Stack of a shard's thread.
const STACK_BYTES: usize = 2 << 20;
/// The process ends with it when a shard panics.
const PANIC_EXIT_CODE: i32 = 101;

/// What one shard's thread is made of.
pub struct ReactorSetup<C: Core> {
    /// The shard's number.
    pub id: ShardId,
    /// The CPU it runs on; one of [`available_cpus`].
    pub cpu: usize,
    /// Makes the shard, on its thread.
    pub build: Box<dyn FnOnce() -> C + Send>,
    /// Its listening sockets.
    pub listeners: Vec<BoundListener>,
    /// The rings of all shards.
    pub table: Arc<RingTable>,
    /// What the listeners put in front of MQTT.
    pub filters: Arc<FilterTable>,
    /// What the control plane sends.
    pub commands: Receiver<C::Command>,
    /// The doorbell of the shard's endpoint in the mesh.
    pub waker: Waker,
    /// Settings.
    pub settings: ReactorSettings,
    /// What the kernel can do.
    pub features: Features,
}

/// Starts shards.
#[derive(Debug)]
pub struct Reactor;

/// A shard's thread, from outside.
#[derive(Debug)]
pub struct ShardThread {
    /// Wakes it after a command was sent.
    pub wake: WakeHandle,
    /// What its reactor counts.
    pub counters: Arc<ReactorCounters>,
    controls: Sender<Control>,
    thread: JoinHandle<()>,
}

impl ShardThread {
    /// Accepts from one more socket.
    pub fn add_listener(&self, listener: BoundListener) {
        self.control(Control::Add(listener));
    }

    /// Stops accepting from a listener and closes its socket.
    pub fn remove_listener(&self, id: ListenerId) {
        self.control(Control::Remove(Some(id)));
    }

    /// Stops accepting.
    pub fn stop_accepting(&self) {
        self.control(Control::Remove(None));
    }

    /// Waits until the shard has stopped.
    pub fn join(self) {
        // A shard that panics ends the process, so there is no panic to pass on.
        let _ = self.thread.join();
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Tells the reactor something; a thread that has ended needs to hear nothing.
    fn control(&self, control: Control) {
        if self.controls.send(control).is_ok() {
            self.wake.wake();
        }
    }
}

/// The CPUs this process may run on.
#[must_use]
pub fn available_cpus() -> Vec<usize> {
    // SAFETY: all-zero is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid place of the size given.
    let failed = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if failed != 0 {
        return vec![0];
    }
    let bits = 8 * size_of::<libc::cpu_set_t>();
    // SAFETY: every number asked for is inside the set.
    (0..bits).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}

impl Reactor {
    /// Starts one shard's thread. Call it for every shard of the table, then [`RingTable::wait_up`]: no shard begins
    /// before all are up, and if one cannot start, none does.
    ///
    /// # Errors
    /// If the thread cannot be made. Everything later is told by [`RingTable::wait_up`].
    pub fn spawn<C: Core>(setup: ReactorSetup<C>) -> Result<ShardThread, StartError> {
        let id = setup.id;
        let table = Arc::clone(&setup.table);
        let fail = |reason: String| {
            table.failed(id, reason.clone());
            StartError::Shard(id, reason)
        };
        let wake = WakeHandle::new(setup.waker.clone()).map_err(|error| {
            fail(format!("no eventfd: {error}; raise the limit of open files (ulimit -n)"))
        })?;
        let counters = Arc::new(ReactorCounters::default());
        let (controls, control_receiver) = crossbeam_channel::unbounded();
        let (inner_wake, inner_counters) = (wake.clone(), Arc::clone(&counters));
        let thread = std::thread::Builder::new()
            .name(format!("shard-{id}"))
            .stack_size(STACK_BYTES)
            .spawn(move || guarded(setup, control_receiver, &inner_wake, inner_counters))
            .map_err(|error| fail(format!("no thread: {error}")))?;
        Ok(ShardThread { wake, counters, controls, thread })
    }
}

/// Runs a shard; one that panics stops the process: its clients' state is gone, and the others wait for it.
fn guarded<C: Core>(
    setup: ReactorSetup<C>,
    controls: Receiver<Control>,
    wake: &WakeHandle,
    counters: Arc<ReactorCounters>,
) {
    let id = setup.id;
    let outcome = catch_unwind(AssertUnwindSafe(|| run(setup, controls, wake, counters)));
    if let Err(payload) = outcome {
        let reason = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no reason given".to_owned());
        log::error!("shard {id} panicked, which is a bug; the broker stops: {reason}");
        log::logger().flush();
        eprintln!("ringmq: shard {id} panicked, which is a bug; the broker stops: {reason}");
        // SAFETY: ends the process without running anything of the other threads; nothing is left to be tidied up.
        unsafe { libc::_exit(PANIC_EXIT_CODE) };
    }
}

/// Runs a shard from its start to its end.
fn run<C: Core>(
    setup: ReactorSetup<C>,
    controls: Receiver<Control>,
    wake: &WakeHandle,
    counters: Arc<ReactorCounters>,
) {
    let (id, cpu, table) = (setup.id, setup.cpu, Arc::clone(&setup.table));
    match executor(id, cpu) {
        Ok(executor) => executor.run(serve(setup, controls, wake, counters)),
        Err(reason) => table.failed(id, reason),
    }
}

/// The shard's executor, pinned to its CPU.
fn executor(id: ShardId, cpu: usize) -> Result<LocalExecutor, String> {
    LocalExecutorBuilder::new(Placement::Fixed(cpu))
        .name(&format!("shard-{id}"))
        .io_memory(GLOMMIO_IO_BYTES)
        .ring_depth(GLOMMIO_RING_DEPTH)
        .make()
        .map_err(|error| {
            format!(
                "no executor on CPU {cpu}: {error}; see whether this process may run on that CPU (taskset -p, cpuset of the \
                 container), the limit of locked memory (ulimit -l, at least 512 KB) and of open files (ulimit -n)"
            )
        })
}

/// The main task of the executor.
async fn serve<C: Core>(
    setup: ReactorSetup<C>,
    controls: Receiver<Control>,
    wake: &WakeHandle,
    counters: Arc<ReactorCounters>,
) {
    let table = Arc::clone(&setup.table);
    let driver = Driver::new(DriverSetup {
        id: setup.id,
        multishot_accept: setup.settings.multishot_accept && setup.features.socket_options,
        settings: setup.settings.clone(),
        table: Arc::clone(&table),
        filter_table: setup.filters,
        counters,
        commands: setup.commands,
        controls,
        event: wake.event(),
    });
    let mut driver = match driver {
        Ok(driver) => driver,
        Err(error) => return table.failed(setup.id, error.to_string()),
    };
    let core = Rc::new(RefCell::new((setup.build)()));
    table.up(setup.id, driver.lanes.main().fd());
    if table.wait_up().is_err() {
        driver.end();
        return;
    }
    for listener in setup.listeners {
        driver.add_listener(listener);
    }
    let background = Background::new(&core, setup.settings.background_shares);
    loop {
        let end = driver.tick(&mut *core.borrow_mut());
        match end {
            TickEnd::Next => {}
            TickEnd::Background => background.give_way().await,
            TickEnd::Stopped => break,
        }
    }
    driver.end();
}

/// The shard's background work: a task in a queue of few shares, there only while there is work.
struct Background<C: Core> {
    core: Rc<RefCell<C>>,
    queue: TaskQueueHandle,
    running: Rc<Cell<bool>>,
}

impl<C: Core> Background<C> {
    /// Makes the queue.
    fn new(core: &Rc<RefCell<C>>, shares: usize) -> Self {
        let queue = glommio::executor().create_task_queue(
            Shares::Static(shares),
            Latency::NotImportant,
            "background",
        );
        Self { core: Rc::clone(core), queue, running: Rc::default() }
    }

    /// Lets the task run a slice; between two slices the driver has a tick.
    async fn give_way(&self) {
        if !self.running.replace(true) {
            let (core, running) = (Rc::clone(&self.core), Rc::clone(&self.running));
            let task = async move {
                while core.borrow().has_background_work() {
                    core.borrow_mut().run_background();
                    glommio::executor().yield_task_queue_now().await;
                }
                running.set(false);
            };
            match glommio::spawn_local_into(task, self.queue) {
                Ok(task) => drop(task.detach()),
                Err(error) => {
                    // The queue was made at the start and lives as long as the executor.
                    panic!("background work cannot be started: {error}");
                }
            }
        }
        glommio::executor().yield_task_queue_now().await;
    }
}
