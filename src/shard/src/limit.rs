//! Clients that send faster than they may: they are not read for a while (SEED-LSN-09, SEED-LSN-22).
//!
//! Nothing is dropped: what has arrived waits in the stash, what has not waits in the kernel and, by its window, at the client.

use metrics::Counter;

use crate::connection::{Connection, State, flag, pause};
use crate::effect::ConnectionId;
use crate::shard::Shard;

/// Until when a connection rests, if it does.
pub(crate) fn rests_until_ms(connection: &Connection) -> Option<u64> {
    connection.extras.as_ref()?.terms.as_ref()?.rates.rests_until_ms
}

impl Shard {
    /// Counts what a client sent against its rates. One that is over rests.
    pub(crate) fn charge(&mut self, id: ConnectionId, bytes: u64, messages: u64) {
        let now_ms = self.clients.now.mono_ms;
        let Some(connection) = self.clients.connections.get_mut(id) else { return };
        let terms = connection.extras.as_mut().and_then(|extras| extras.terms.as_mut());
        let Some(terms) = terms.filter(|_| connection.state == State::Connected) else { return };
        let rates = &mut terms.rates;
        let before = rates.rests_until_ms;
        for (bucket, tokens) in [(&mut rates.bytes, bytes), (&mut rates.messages, messages)] {
            if let Some(bucket) = bucket.as_mut().filter(|_| tokens > 0)
                && !bucket.take(tokens, now_ms)
            {
                rates.rests_until_ms = rates.rests_until_ms.max(Some(bucket.resume_ms()));
            }
        }
        let Some(until_ms) = rates.rests_until_ms.filter(|_| rates.rests_until_ms != before) else {
            return;
        };
        match before {
            Some(before_ms) => {
                self.rests.remove(&(before_ms, id.index));
            }
            None => self.clients.metrics.inc(Counter::ClientRateLimited),
        }
        self.rests.insert((until_ms, id.index));
        self.pause(id, pause::RATE);
    }

    /// Goes on with the clients that have rested long enough.
    pub(crate) fn end_rests(&mut self) {
        let now_ms = self.clients.now.mono_ms;
        while let Some(&(until_ms, index)) = self.rests.first()
            && until_ms <= now_ms
        {
            self.rests.pop_first();
            let connection = self.clients.connections.at_mut(index);
            let connection = connection.expect("a connection that ends rests no more");
            let terms = connection.extras.as_mut().and_then(|extras| extras.terms.as_mut());
            terms.expect("who rests has a rate").rates.rests_until_ms = None;
            let id = ConnectionId { index, generation: connection.generation };
            self.resume(id, pause::RATE);
        }
    }

    /// Nothing more comes from a client: what it sent before, no more than a stash holds, need not wait for its rate.
    pub(crate) fn lift_rate(&mut self, id: ConnectionId) {
        let Some(connection) = self.clients.connections.get_mut(id) else { return };
        if !connection.has(flag::LIMITED) {
            return;
        }
        connection.flags &= !flag::LIMITED;
        let terms = connection.extras.as_mut().and_then(|extras| extras.terms.as_mut());
        let until_ms = terms.and_then(|terms| std::mem::take(&mut terms.rates).rests_until_ms);
        if let Some(until_ms) = until_ms {
            self.rests.remove(&(until_ms, id.index));
        }
        self.resume(id, pause::RATE);
    }
}

#[cfg(test)]
mod tests {
    use crate::desk::{Desk, connect, publish};
    use crate::effect::{ConnectionId, Effect, ReceiveEnd};

    /// A publisher with these limits and a subscriber of `a` by another listener.
    fn pair(set: &[(&str, &str)], keepalive_s: u8) -> (Desk, ConnectionId, ConnectionId) {
        let mut desk = Desk::new(set);
        let publisher = desk.accept(0, "10.0.0.1:5");
        desk.tick(1, Some((publisher, &connect("p", keepalive_s))));
        let subscriber = desk.accept(1, "10.0.0.2:5");
        desk.tick(1, Some((subscriber, &connect("s", 0))));
        desk.tick(1, Some((subscriber, &[0x82, 6, 0, 1, 0, 1, b'a', 0])));
        (desk, publisher, subscriber)
    }

    /// Payload bytes the subscriber got in this tick.
    fn got(sent: &[(ConnectionId, Vec<u8>)], subscriber: ConnectionId) -> String {
        let bytes = sent.iter().filter(|(id, _)| *id == subscriber).flat_map(|(_, bytes)| bytes);
        let bytes: Vec<u8> = bytes.copied().collect();
        bytes.chunks(6).map(|packet| char::from(packet[5])).collect()
    }

    fn many(payloads: &str) -> Vec<u8> {
        payloads.chars().flat_map(|one| publish("a", &one.to_string())).collect()
    }

    /// SEED-LSN-22
    #[test]
    fn messages_over_the_rate_wait_and_none_is_lost() {
        let (mut desk, publisher, subscriber) =
            pair(&[("listener.tcp.external.max_publish_rate", "10/s,2")], 0);
        let sent = desk.tick(1, Some((publisher, &many("12345"))));
        assert_eq!(got(&sent, subscriber), "12");
        assert!(desk.asked(Effect::PauseReceive(publisher)));
        // What was on its way already waits behind, a ping does not.
        let mut more = many("6");
        more.extend([0xc0, 0]);
        let sent = desk.tick(1, Some((publisher, &more)));
        assert_eq!(sent, [(publisher, vec![0xd0, 0])]);
        let due = desk.shard.next_deadline_ms().unwrap();
        assert!((99..=100).contains(&(due - desk.now.mono_ms)), "{due} {}", desk.now.mono_ms);
        let mut all = String::new();
        for _ in 0..4 {
            all += &got(&desk.tick(100, None), subscriber);
        }
        assert_eq!(all, "3456");
        assert!(desk.asked(Effect::PauseReceive(publisher)), "one more has to wait again");
        desk.tick(100, None);
        assert!(desk.asked(Effect::ResumeReceive(publisher)));
        assert_eq!(desk.shard.rests.len(), 0);
    }

    /// SEED-LSN-09
    #[test]
    fn bytes_over_the_rate_are_waited_for() {
        let (mut desk, publisher, subscriber) =
            pair(&[("listener.tcp.external.rate_limit", "100/s,50")], 0);
        // What has come is handled at once; the debt is waited for.
        let sent = desk.tick(1, Some((publisher, &many("1234567890"))));
        assert_eq!(got(&sent, subscriber), "1234567890");
        assert!(desk.asked(Effect::PauseReceive(publisher)));
        desk.tick(100, None);
        assert!(!desk.asked(Effect::ResumeReceive(publisher)));
        desk.tick(30, None);
        assert!(desk.asked(Effect::ResumeReceive(publisher)));
    }

    /// SEED-LSN-22: the rate of the zone holds where the listener has none.
    #[test]
    fn a_zone_has_a_rate() {
        let set = [
            ("listener.tcp.external.zone", "slow"),
            ("zone.slow.mqtt.client.max_publish_rate", "1/s"),
        ];
        let (mut desk, publisher, subscriber) = pair(&set, 0);
        let sent = desk.tick(1, Some((publisher, &many("12"))));
        assert_eq!(got(&sent, subscriber), "1");
        let sent = desk.tick(1, Some((subscriber, &many("34"))));
        assert_eq!(got(&sent, subscriber), "34", "the other listener is not in the zone");
    }

    #[test]
    fn the_keepalive_of_a_client_that_rests_does_not_run() {
        let (mut desk, publisher, _) =
            pair(&[("listener.tcp.external.max_publish_rate", "1/10s")], 1);
        desk.tick(1, Some((publisher, &many("1"))));
        assert!(desk.asked(Effect::PauseReceive(publisher)));
        for _ in 0..99 {
            desk.tick(100, None);
        }
        assert_eq!(desk.ended(0, "keepalive_timeout"), 0);
        desk.tick(100, None);
        assert!(desk.asked(Effect::ResumeReceive(publisher)));
        desk.tick(1400, None);
        assert_eq!(desk.ended(0, "keepalive_timeout"), 0, "its silence begins when it is read");
        for _ in 0..3 {
            desk.tick(100, None);
        }
        assert_eq!(desk.ended(0, "keepalive_timeout"), 1);
    }

    #[test]
    fn what_a_client_sent_before_it_left_is_not_lost() {
        let (mut desk, publisher, subscriber) =
            pair(&[("listener.tcp.external.max_publish_rate", "1/1h")], 0);
        desk.tick(1, Some((publisher, &many("123"))));
        desk.shard.receive_ended(publisher, ReceiveEnd::PeerClosed);
        let sent = desk.tick(1, None);
        assert_eq!(got(&sent, subscriber), "23");
        assert_eq!(desk.ended(0, "closed"), 1);
        assert!(desk.shard.rests.is_empty());
        assert_eq!(desk.shard.next_deadline_ms().filter(|at| *at > desk.now.mono_ms + 5000), None);
    }

    #[test]
    fn who_is_ended_rests_no_more() {
        let (mut desk, publisher, _) =
            pair(&[("listener.tcp.external.max_publish_rate", "1/1h")], 0);
        desk.tick(1, Some((publisher, &many("12"))));
        assert_eq!(desk.shard.rests.len(), 1);
        let again = desk.accept(0, "10.0.0.1:6");
        desk.tick(1, Some((again, &connect("p", 0))));
        assert!(desk.shard.rests.is_empty(), "the same client by another connection");
        desk.tick(1, None);
    }
}
