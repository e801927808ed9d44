//! What the control plane looks at each second: the memory of the process, and what shards say of themselves. It tells the
//! shards when there is too much memory, and raises and clears the alarms.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use config::Settings;
use metrics::Gauge;
use ring::ShardId;
use shard::{Causes, OverloadBoard, Watermark};

use crate::alarms::{
    Alarms, OVERLOAD_MEMORY, OVERLOAD_MESH_QUEUE, OVERLOAD_TICK_TIME, QUEUE_HIGH_WATERMARK,
};
use crate::stats::Stats;

const MB: u64 = 1 << 20;

/// Looks, and remembers what was too much.
#[derive(Debug)]
pub(crate) struct Watch {
    settings: Arc<Settings>,
    board: Arc<OverloadBoard>,
    alarms: Arc<Alarms>,
    stats: Arc<Stats>,
    shards: usize,
    /// None: memory is not watched.
    memory: Option<Watermark>,
}

impl Watch {
    pub fn new(
        settings: Arc<Settings>,
        board: Arc<OverloadBoard>,
        alarms: Arc<Alarms>,
        stats: Arc<Stats>,
        shards: usize,
    ) -> Self {
        let overload = &settings.overload;
        let budget = overload.memory_high.bytes(memory_available()).filter(|_| overload.enable);
        // A tenth below: memory that was given back returns to the kernel in pieces.
        let memory = budget.map(|high| Watermark::new(high, high - high / 10));
        Self { settings, board, alarms, stats, shards, memory }
    }

    /// Looks; whether the shards are to be woken, as there is too much memory: an idle one may have some to give back.
    pub fn look(&mut self) -> bool {
        self.stats.look();
        let mut wakes = false;
        if let Some(mark) = &mut self.memory
            && let Some(bytes) = memory_used()
        {
            let is_high = mark.look(bytes);
            self.board.set_memory(is_high);
            wakes = is_high;
            let found = || {
                format!(
                    "the process has {} MB of memory, overload.memory_high_watermark is {} MB",
                    bytes / MB,
                    mark.high() / MB
                )
            };
            self.alarms.set(&OVERLOAD_MEMORY, is_high.then(found));
        }
        let ticks = self.shards_with(Causes::TICK_TIME).map(|shards| {
            let limit_ms = self.settings.overload.tick_time_ms;
            format!("ticks of {shards} take longer than {limit_ms} ms (overload.tick_time)")
        });
        self.alarms.set(&OVERLOAD_TICK_TIME, ticks);
        let queues = self.shards_with(Causes::MESH_QUEUE).map(|shards| {
            let most = self.settings.overload.mesh_queue;
            format!("more than {most} messages (overload.mesh_queue) of {shards} wait for others")
        });
        self.alarms.set(&OVERLOAD_MESH_QUEUE, queues);
        let sessions = self.stats.count(Gauge::QueueAlarms);
        let full = (sessions > 0).then(|| {
            let mqueue = &self.settings.mqueue;
            format!(
                "{sessions} {} more than {}% of {} messages waiting (mqtt.mqueue.high_watermark)",
                if sessions == 1 { "session has" } else { "sessions have" },
                mqueue.high_watermark_percent,
                mqueue.max_length
            )
        });
        self.alarms.set(&QUEUE_HIGH_WATERMARK, full);
        wakes
    }

    /// Names the shards that have too much of something.
    fn shards_with(&self, cause: Causes) -> Option<String> {
        let has = |n: &usize| self.board.causes(ShardId::new(*n)).has(cause);
        let found: Vec<String> = (0..self.shards).filter(has).map(|n| n.to_string()).collect();
        let word = if found.len() == 1 { "shard" } else { "shards" };
        (!found.is_empty()).then(|| format!("{word} {}", found.join(", ")))
    }
}

/// Bytes of memory the process has for itself: what a kernel short of memory would have to kill it for.
fn memory_used() -> Option<u64> {
    Some(kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "RssAnon:")? * 1024)
}

/// The memory of the machine, or of the control group of the process if that has less.
fn memory_available() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = kilobytes(&meminfo, "MemTotal:").map_or(u64::MAX, |kb| kb * 1024);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups.lines().filter_map(group_limit).fold(machine, u64::min)
}

/// The least limit of the group that a line of `/proc/self/cgroup` names and of those around it.
fn group_limit(line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let (root, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let group = Path::new(root).join(path.trim_start_matches('/'));
    let folders = group.ancestors().take_while(|folder| folder.starts_with(root));
    // Without a limit the file has `max`, or a number beyond any memory.
    folders
        .filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok())
        .min()
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().strip_suffix("kB")?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics::ShardMetrics;

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        assert_eq!(kilobytes("VmRSS:\t 10 kB\nRssAnon:\t   8 kB\n", "RssAnon:"), Some(8));
        assert_eq!(kilobytes("VmRSS:\t 10 kB\n", "RssAnon:"), None);
        assert!(memory_used().unwrap() > 0);
        assert!((MB..u64::MAX).contains(&memory_available()));
        assert_eq!(group_limit("4:cpu,cpuacct:/a"), None);
        assert_eq!(group_limit("no line of that file"), None);
    }

    #[test]
    fn what_is_too_much_becomes_an_alarm_and_ends() {
        let mut settings = Settings::default();
        settings.overload.memory_high = config::MemoryBudget::Bytes(1);
        let (board, alarms) = (Arc::new(OverloadBoard::new(2)), Arc::new(Alarms::default()));
        let metrics: Vec<Arc<ShardMetrics>> = vec![Arc::default(), Arc::default()];
        metrics[1].set(Gauge::QueueAlarms, 3);
        let stats = Arc::new(Stats::new(metrics.clone(), vec![]));
        let mut watch = Watch::new(Arc::new(settings), board.clone(), alarms.clone(), stats, 2);
        assert!(watch.look());
        let active: Vec<_> = alarms.active().iter().map(|alarm| alarm.kind.id).collect();
        assert_eq!(active, ["overload_memory", "queue_high_watermark"]);
        assert_eq!(
            alarms.active()[1].summary,
            "3 sessions have more than 60% of 1000 messages waiting (mqtt.mqueue.high_watermark)"
        );
        watch.memory = Some(Watermark::new(u64::MAX, u64::MAX));
        metrics[1].set(Gauge::QueueAlarms, 0);
        assert!(!watch.look());
        assert_eq!(alarms.active(), []);
    }
}
