//! An engine as the reactor drives it.

use std::net::SocketAddr;

use super::connections::{DIRTY, NONE, WANTS_DRAINED};
use super::reassembly;
use super::{Agent, CloseCause, Net};
use crate::wire::Malformed;
use reactor::{Connect, Core};
use ring::Endpoint;
use shard::{ConnectionId, Effect, ListenerId, Now, Outgoing, ReceiveEnd};

/// Timers handled in one tick: a thread that is late goes on reading.
const TIMERS_MAX: usize = 4096;

/// The clients of one thread.
#[derive(Debug)]
pub struct Engine<A> {
    agent: A,
    net: Net,
    /// The doorbell; the threads have nothing to tell each other.
    endpoint: Endpoint<(), ()>,
    has_started: bool,
}

impl<A: Agent> Engine<A> {
    /// An engine for clients 0 to `clients` - 1.
    pub fn new(agent: A, clients: u32, endpoint: Endpoint<(), ()>) -> Engine<A> {
        Engine { agent, net: Net::new(clients), endpoint, has_started: false }
    }

    fn lost(&mut self, id: ConnectionId, cause: CloseCause) {
        if let Some(client) = self.net.lost(id) {
            self.agent.closed(&mut self.net, client, cause);
        }
    }

    /// Hands in all whole packets; keeps the begin of the last.
    fn take_bytes(&mut self, id: ConnectionId, bytes: &[u8]) -> Result<(), Malformed> {
        let Some(client) = self.net.client(id) else { return Ok(()) };
        let mut rest = bytes;
        if let Some(mut partial) = self.take_partial(id) {
            let used = reassembly::complete(&mut partial, rest)?;
            rest = &rest[used..];
            if let Some(frame) = reassembly::first(&partial)? {
                self.agent.packet(&mut self.net, client, &frame);
                partial.clear();
            }
            self.keep_partial(id, partial);
        }
        while self.net.client(id).is_some() {
            let Some(frame) = reassembly::first(rest)? else { break };
            self.agent.packet(&mut self.net, client, &frame);
            rest = &rest[frame.len..];
        }
        if !rest.is_empty() && self.net.client(id).is_some() {
            reassembly::packet_len(rest)?;
            let connection = self.net.connections.get(id).expect("it has a client");
            self.net.ios.need(&mut connection.io).partial.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Hands in what the layers of a connection make of received bytes.
    fn take_layered(&mut self, id: ConnectionId, bytes: &[u8]) -> Result<(), Malformed> {
        let passed = self.net.layers.received(id.index, bytes);
        if passed.has_wire || passed.opened.is_some() {
            self.net.is_to_flush(id.index);
        }
        if let (Some(is_resumed), Some(client)) = (passed.opened, self.net.client(id)) {
            self.agent.secured(&mut self.net, client, is_resumed);
        }
        let result = self.take_bytes(id, &passed.plain);
        self.net.layers.recycle(passed.plain);
        if let Some(error) = passed.error {
            self.lost(id, CloseCause::Layers(error.reason()));
        } else if passed.is_ended {
            self.lost(id, CloseCause::PeerClosed);
        }
        result
    }

    fn take_partial(&mut self, id: ConnectionId) -> Option<Vec<u8>> {
        let connection = self.net.connections.get(id)?;
        let io = self.net.ios.get(connection.io).filter(|io| !io.partial.is_empty())?;
        Some(std::mem::take(&mut io.partial))
    }

    fn keep_partial(&mut self, id: ConnectionId, partial: Vec<u8>) {
        let Some(connection) = self.net.connections.get(id) else { return };
        if let Some(io) = self.net.ios.get(connection.io) {
            io.partial = partial;
        }
    }

    /// A connection that is wanted is open: its layers begin, if it has any.
    fn open_layers(&mut self, id: ConnectionId, client: u32) {
        if let Some(settings) = self.agent.layers(client) {
            if let Err(error) = self.net.layers.insert(id.index, settings) {
                return self.lost(id, CloseCause::Layers(error.reason()));
            }
            self.net.is_to_flush(id.index);
        }
        self.agent.opened(&mut self.net, client);
    }

    fn settle(&mut self, id: ConnectionId) {
        if let Some(connection) = self.net.connections.get(id)
            && !connection.has(DIRTY)
        {
            self.net.ios.release_empty(&mut connection.io);
        }
    }
}

impl<A: Agent> Core for Engine<A> {
    type Command = A::Command;

    fn begin_tick(&mut self, _: Now) {
        self.net.read_clock();
        if !self.has_started {
            self.has_started = true;
            self.agent.start(&mut self.net);
        }
    }

    fn accepted(&mut self, _: u32, _: ListenerId, _: SocketAddr) -> ConnectionId {
        unreachable!("an engine has no listeners")
    }

    #[inline]
    fn received(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.net.read_clock();
        let taken = match self.net.layers.has(id.index) {
            true => self.take_layered(id, bytes),
            false => self.take_bytes(id, bytes),
        };
        match taken {
            Ok(()) => self.settle(id),
            Err(Malformed) => self.lost(id, CloseCause::Malformed),
        }
    }

    fn receive_ended(&mut self, id: ConnectionId, end: ReceiveEnd) {
        let cause = match end {
            ReceiveEnd::PeerClosed => CloseCause::PeerClosed,
            ReceiveEnd::Failed(errno) => Net::cause(errno),
            ReceiveEnd::Refused(_) => unreachable!("the layers of this side are the engine's"),
        };
        self.lost(id, cause);
    }

    fn sent(&mut self, id: ConnectionId, outgoing: Outgoing, result: Result<(), i32>) {
        if let Outgoing::Bytes(buffer) = outgoing {
            self.net.ios.recycle(buffer);
        }
        let Some(connection) = self.net.connections.get(id) else { return };
        connection.sending = 0;
        if let Err(errno) = result {
            return self.lost(id, Net::cause(errno));
        }
        let is_empty = self.net.ios.get(connection.io).is_none_or(|io| io.outbox.is_empty());
        if is_empty && connection.has(WANTS_DRAINED) {
            connection.clear(WANTS_DRAINED);
            if let Some(client) = self.net.client(id) {
                self.agent.drained(&mut self.net, client);
            }
        }
        self.settle(id);
    }

    fn closed(&mut self, index: u32) {
        self.net.freed(index);
    }

    fn descriptor_arrived(&mut self, _: u64, _: u32) -> Option<ConnectionId> {
        unreachable!("connections do not move between engines")
    }

    fn detach(&mut self, _: ConnectionId) {
        unreachable!("connections do not move between engines")
    }

    fn descriptor_sent(&mut self, _: ConnectionId, _: Result<(), i32>) {
        unreachable!("connections do not move between engines")
    }

    fn run_inbox(&mut self) {
        for _ in self.endpoint.next_pending() {}
    }

    fn command(&mut self, command: A::Command) {
        self.agent.command(&mut self.net, command);
    }

    fn run_timers(&mut self) {
        for _ in 0..TIMERS_MAX {
            let Some(timer) = self.net.schedule.pop(self.net.now_ns()) else { break };
            self.agent.timer(&mut self.net, timer);
        }
    }

    fn finish_tick(&mut self) {}

    fn drain_effects(&mut self, effects: &mut Vec<Effect>) {
        self.net.drain_effects(effects);
    }

    fn take_outgoing(&mut self, id: ConnectionId) -> Option<Outgoing> {
        let is_layered = self.net.layers.has(id.index);
        let is_held = is_layered && !self.net.layers.is_open(id.index);
        let connection = self.net.connections.get(id)?;
        let bytes = if is_held { None } else { self.net.ios.take_outbox(connection.io) };
        let bytes = if is_layered {
            let ends = connection.client == NONE;
            let wire = self.net.layers.outgoing(id.index, bytes.as_deref(), ends);
            bytes.into_iter().for_each(|bytes| self.net.ios.recycle(bytes));
            match wire {
                Ok(wire) => wire?,
                Err(error) => {
                    self.lost(id, CloseCause::Layers(error.reason()));
                    return None;
                }
            }
        } else {
            bytes?
        };
        connection.sending = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.net.look_again |= connection.has(WANTS_DRAINED);
        Some(Outgoing::Bytes(bytes))
    }

    fn next_connect(&mut self) -> Option<Connect> {
        let client = self.net.next_to_open()?;
        let route = self.agent.route(client);
        Some(Connect { token: u64::from(client), from: route.from, to: route.to })
    }

    fn connected(&mut self, token: u64, index: u32) -> ConnectionId {
        self.net.read_clock();
        let client = u32::try_from(token).expect("tokens are clients");
        let (id, is_wanted) = self.net.opened(client, index);
        if is_wanted {
            self.open_layers(id, client);
        }
        id
    }

    fn connect_failed(&mut self, token: u64, errno: i32) {
        let client = u32::try_from(token).expect("tokens are clients");
        if self.net.not_opened(client) {
            self.agent.failed(&mut self.net, client, errno);
        }
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        self.next_deadline_ns().map(|at_ns| at_ns.div_ceil(1_000_000))
    }

    fn next_deadline_ns(&self) -> Option<u64> {
        self.net.next_deadline_ns()
    }

    fn take_foreign(&mut self) {
        self.endpoint.take_foreign();
    }

    fn prepare_park(&mut self) -> bool {
        !std::mem::take(&mut self.net.look_again) && self.endpoint.prepare_park()
    }

    fn unpark(&mut self) {
        self.endpoint.unpark();
    }

    fn has_background_work(&self) -> bool {
        false
    }

    fn run_background(&mut self) {}

    fn is_stopping(&self) -> bool {
        self.net.is_stopping()
    }

    fn is_stopped(&self) -> bool {
        self.net.is_stopped()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Route, Timer};
    use super::*;
    use crate::wire::Frame;
    use filter::{
        ClientFilterSettings, Filter, FilterSettings, WebSocketSettings, WebSocketTarget,
    };
    use ring::Mesh;
    use shard::CloseMode;

    /// Writes down what it is told, and does what a packet's first body byte says.
    #[derive(Debug, Default)]
    struct Script {
        seen: Vec<String>,
        reopens: bool,
        layers: Option<ClientFilterSettings>,
    }

    impl Script {
        fn take(&mut self) -> Vec<String> {
            std::mem::take(&mut self.seen)
        }
    }

    impl Agent for Script {
        type Command = ();

        fn start(&mut self, net: &mut Net) {
            net.open(0);
            net.open(1);
        }
        fn route(&mut self, client: u32) -> Route {
            let port = u16::try_from(client).expect("small");
            Route { from: None, to: SocketAddr::from(([127, 0, 0, 1], port)) }
        }
        fn layers(&self, _: u32) -> Option<&ClientFilterSettings> {
            self.layers.as_ref()
        }
        fn secured(&mut self, _: &mut Net, client: u32, is_resumed: bool) {
            self.seen.push(format!("secured {client} {is_resumed}"));
        }
        fn opened(&mut self, net: &mut Net, client: u32) {
            self.seen.push(format!("opened {client}"));
            net.outbox(client).expect("open").extend_from_slice(b"hello");
        }
        fn packet(&mut self, net: &mut Net, client: u32, frame: &Frame<'_>) {
            self.seen.push(format!("packet {client} {:02x} {}", frame.first, frame.body.len()));
            match frame.body.first() {
                Some(b'q') => net.close(client, CloseMode::Linger),
                Some(b'd') => {
                    net.outbox(client).expect("open").extend_from_slice(b"more");
                    net.when_drained(client);
                }
                _ => {}
            }
        }
        fn failed(&mut self, _: &mut Net, client: u32, errno: i32) {
            self.seen.push(format!("failed {client} {errno}"));
        }
        fn closed(&mut self, net: &mut Net, client: u32, cause: CloseCause) {
            self.seen.push(format!("closed {client} {cause:?}"));
            assert!(net.outbox(client).is_none(), "it has no connection");
            if self.reopens {
                net.open(client);
            }
        }
        fn drained(&mut self, net: &mut Net, client: u32) {
            assert_eq!(net.unsent(client), 0);
            self.seen.push(format!("drained {client}"));
        }
        fn timer(&mut self, net: &mut Net, timer: Timer) {
            if timer.tag == 1 {
                net.close(timer.client, CloseMode::Now);
            } else {
                net.open(timer.client);
            }
        }
        fn command(&mut self, net: &mut Net, (): ()) {
            net.close(0, CloseMode::Now);
            net.close(1, CloseMode::Now);
            net.stop(3_600_000_000_000);
        }
    }

    /// An engine whose two clients are open, in slots 7 and 9000.
    fn started() -> (Engine<Script>, ConnectionId, ConnectionId) {
        let endpoint = Mesh::build::<(), ()>(1, 2, 2).remove(0);
        let mut engine = Engine::new(Script::default(), 2, endpoint);
        engine.begin_tick(Now::default());
        let wanted: Vec<(u64, u16)> = std::iter::from_fn(|| engine.next_connect())
            .map(|connect| (connect.token, connect.to.port()))
            .collect();
        assert_eq!(wanted, [(0, 0), (1, 1)]);
        let ids = (engine.connected(0, 7), engine.connected(1, 9000));
        assert_eq!(engine.agent.take(), ["opened 0", "opened 1"]);
        (engine, ids.0, ids.1)
    }

    fn effects(engine: &mut Engine<Script>) -> Vec<Effect> {
        let mut effects = Vec::new();
        engine.drain_effects(&mut effects);
        effects
    }

    fn outgoing(engine: &mut Engine<Script>, id: ConnectionId) -> Option<Vec<u8>> {
        engine.take_outgoing(id).map(|outgoing| match outgoing {
            Outgoing::Bytes(bytes) => bytes,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn what_a_tick_appends_is_sent_once() {
        let (mut engine, first, second) = started();
        engine.agent.packet_says(&mut engine.net, 0, b"d");
        assert_eq!(
            effects(&mut engine),
            [
                Effect::StartReceive(first),
                Effect::StartReceive(second),
                Effect::Flush(first),
                Effect::Flush(second)
            ]
        );
        assert!(engine.prepare_park());
        assert_eq!(outgoing(&mut engine, first).expect("bytes"), b"hellomore");
        assert!(!engine.prepare_park(), "the end of an eager send makes no event");
        assert!(engine.prepare_park());
        assert!(outgoing(&mut engine, first).is_none());
        engine.sent(first, Outgoing::Bytes(Vec::new()), Ok(()));
        assert_eq!(engine.agent.take(), ["packet 0 30 1", "drained 0"]);
        engine.sent(first, Outgoing::Bytes(Vec::new()), Ok(()));
        assert!(engine.agent.take().is_empty(), "told once");
    }

    #[test]
    fn packets_are_the_same_however_they_are_cut() {
        let mut stream = vec![0xD0, 0, 0x30, 0x80 | 2, 1];
        stream.extend_from_slice(&[b'x'; 130]);
        stream.extend_from_slice(&[0x40, 2, 0, 1]);
        let expected = ["packet 0 d0 0", "packet 0 30 130", "packet 0 40 2"];
        for cut in 0..stream.len() {
            for second_cut in [cut, (cut + 1).min(stream.len()), stream.len()] {
                let (mut engine, id, _) = started();
                engine.received(id, &stream[..cut]);
                engine.received(id, &stream[cut..second_cut]);
                engine.received(id, &stream[second_cut..]);
                assert_eq!(engine.agent.take(), expected, "cut at {cut} and {second_cut}");
            }
        }
    }

    #[test]
    fn a_closed_client_hears_no_more() {
        let (mut engine, id, _) = started();
        effects(&mut engine);
        engine.received(id, &[0x30, 1, b'q', 0x30, 1, b'x']);
        engine.received(id, &[0x30, 1, b'x']);
        engine.receive_ended(id, ReceiveEnd::PeerClosed);
        assert_eq!(engine.agent.take(), ["packet 0 30 1"]);
        assert_eq!(effects(&mut engine), [Effect::Close { id, mode: CloseMode::Linger }]);
        assert_eq!(outgoing(&mut engine, id).expect("what was written before"), b"hello");
        engine.sent(id, Outgoing::Bytes(Vec::new()), Ok(()));
        engine.closed(id.index);
        // The slot's next user is another.
        engine.net.open(0);
        assert_eq!(engine.next_connect().expect("asked for").token, 0);
        let next = engine.connected(0, id.index);
        assert_ne!(next, id);
        engine.received(id, &[0x30, 1, b'x']);
        assert_eq!(engine.agent.take(), ["opened 0"]);
    }

    #[test]
    fn a_lost_client_may_open_at_once_and_garbage_loses_it() {
        let (mut engine, id, other) = started();
        engine.agent.reopens = true;
        engine.receive_ended(id, ReceiveEnd::Failed(104));
        engine.received(other, &[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1]);
        assert_eq!(engine.agent.take(), ["closed 0 Failed(104)", "closed 1 Malformed"]);
        assert_eq!(engine.next_connect().expect("again").token, 0);
        engine.connect_failed(0, 111);
        assert_eq!(engine.agent.take(), ["failed 0 111"]);
        let closes: Vec<Effect> = effects(&mut engine)
            .into_iter()
            .filter(|effect| matches!(effect, Effect::Close { .. }))
            .collect();
        let mode = CloseMode::Now;
        assert_eq!(closes, [Effect::Close { id, mode }, Effect::Close { id: other, mode }]);
    }

    #[test]
    fn a_client_nobody_wants_any_more_is_closed_when_it_comes() {
        let endpoint = Mesh::build::<(), ()>(1, 2, 2).remove(0);
        let mut engine = Engine::new(Script::default(), 2, endpoint);
        engine.begin_tick(Now::default());
        assert_eq!(engine.next_connect().expect("the first").token, 0);
        engine.net.close(0, CloseMode::Now);
        let id = engine.connected(0, 3);
        assert_eq!(effects(&mut engine), [Effect::Close { id, mode: CloseMode::Now }]);
        // Not asked for yet: forgotten.
        engine.net.close(1, CloseMode::Now);
        assert!(engine.next_connect().is_none());
        // Closed and wanted again on its way: that connection will do.
        engine.net.open(1);
        assert_eq!(engine.next_connect().expect("asked for").token, 1);
        engine.net.close(1, CloseMode::Now);
        engine.net.open(1);
        assert!(engine.next_connect().is_none());
        engine.connected(1, 4);
        assert_eq!(engine.agent.take(), ["opened 1"]);
    }

    /// An engine with one open client that speaks WebSocket, and the broker's side of it.
    fn layered(path: &str) -> (Engine<Script>, ConnectionId, Box<Filter>) {
        let target = WebSocketTarget { host: "h".to_owned(), path: path.to_owned() };
        let layers = Some(ClientFilterSettings { tls: None, websocket: Some(target) });
        let endpoint = Mesh::build::<(), ()>(1, 2, 2).remove(0);
        let mut engine = Engine::new(Script { layers, ..Script::default() }, 2, endpoint);
        engine.begin_tick(Now::default());
        let id = engine.connected(0, 2_000);
        let websocket = Some(WebSocketSettings::default());
        let settings = FilterSettings { websocket, ..FilterSettings::default() };
        (engine, id, Filter::new(&settings.into()))
    }

    #[test]
    fn layers_come_up_before_what_the_agent_has_written_is_sent() {
        let (mut engine, id, mut broker) = layered("/mqtt");
        assert_eq!(effects(&mut engine), [Effect::StartReceive(id), Effect::Flush(id)]);
        let (mut plain, mut wire) = (Vec::new(), Vec::new());
        let mut request = outgoing(&mut engine, id).expect("the request");
        assert!(outgoing(&mut engine, id).is_none(), "the packet waits");
        engine.sent(id, Outgoing::Bytes(Vec::new()), Ok(()));
        broker.received(&mut request, &mut plain, &mut wire).expect("well formed");
        // The answer and a packet in one piece.
        broker.send(std::iter::once(&[0x30, 1, b'd'][..]), &mut wire).expect("open");
        engine.received(id, &wire);
        assert_eq!(engine.agent.take(), ["opened 0", "secured 0 false", "packet 0 30 1"]);
        assert_eq!(effects(&mut engine), [Effect::Flush(id)]);
        let mut frames = outgoing(&mut engine, id).expect("what waited");
        broker.received(&mut frames, &mut plain, &mut Vec::new()).expect("well formed");
        assert_eq!(plain, b"hellomore");
        engine.sent(id, Outgoing::Bytes(Vec::new()), Ok(()));
        assert_eq!(engine.agent.take(), ["drained 0"]);
        // It says goodbye in the words of its layers.
        engine.net.close(0, CloseMode::Linger);
        let mut last = outgoing(&mut engine, id).expect("a Close");
        broker.received(&mut last, &mut plain, &mut Vec::new()).expect("well formed");
        assert!(broker.is_ended());
        assert!(outgoing(&mut engine, id).is_none(), "it is said once");
        engine.closed(id.index);
        assert!(!engine.net.layers.has(id.index));
    }

    #[test]
    fn layers_that_fail_lose_the_client_and_say_why() {
        let (mut engine, id, mut broker) = layered("/elsewhere");
        let mut request = outgoing(&mut engine, id).expect("the request");
        let mut answer = Vec::new();
        broker.received(&mut request, &mut Vec::new(), &mut answer).expect_err("another path");
        engine.received(id, &answer);
        assert_eq!(engine.agent.take(), ["opened 0", "closed 0 Layers(\"ws_answer\")"]);
    }

    #[test]
    fn it_stops_when_all_are_closed() {
        let (mut engine, first, second) = started();
        engine.command(());
        assert!(engine.is_stopping() && !engine.is_stopped());
        engine.closed(first.index);
        assert!(!engine.is_stopped());
        engine.closed(second.index);
        assert!(engine.is_stopped());
    }

    impl Script {
        fn packet_says(&mut self, net: &mut Net, client: u32, body: &[u8]) {
            self.packet(net, client, &Frame { first: 0x30, body, len: body.len() + 2 });
        }
    }
}
