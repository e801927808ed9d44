//! Timers: keepalive, time to CONNECT, retransmission, wills and expiry; and the look at what is overdue.

use metrics::DropReason;
use mqtt::QoS;
use router::SessionId;

use crate::connection::{STAMP_MS, State, pause};
use crate::effect::ConnectionId;
use crate::leave::End;
use crate::sessions::NO_CONNECTION;
use crate::shard::Shard;
use crate::turns::WORK_MAX;

/// Sends and half packets are looked at this often; their time-outs are late by no more.
const SWEEP_MS: u64 = 1000;
/// Timers of sessions that are handled in one tick.
const SESSIONS_PER_TICK: usize = 1024;

impl Shard {
    /// Handles the timers that are due.
    pub fn run_timers(&mut self) {
        let now_ms = self.clients.now.mono_ms;
        let mut due = std::mem::take(&mut self.scratch.due);
        self.clients.connection_timers.advance(now_ms, &mut due);
        for connection in due.drain(..) {
            self.connection_timer(connection);
        }
        if self.session_timers_run() {
            self.clients.session_timers.advance(now_ms, &mut due);
            self.due_sessions.extend(due.drain(..));
            self.run_due_sessions();
        }
        self.scratch.due = due;
        self.end_rests();
        if now_ms >= self.swept_ms + SWEEP_MS {
            self.swept_ms = now_ms;
            self.sweep();
            self.sweep_retained();
        }
        self.retry_replays();
        self.publish_due();
    }

    /// Handles timers of sessions that have fired, a slice of them in a tick: after a start, or a failure of many clients, all
    /// their wills may be due at once. A timer says only that something may be due; so one that is late does no harm.
    fn run_due_sessions(&mut self) {
        for _ in 0..SESSIONS_PER_TICK {
            if self.clients.work > WORK_MAX || self.is_journal_full() || self.mesh.has_blocked() {
                return;
            }
            let Some(session) = self.due_sessions.pop_front() else { return };
            self.session_timer(SessionId(session));
        }
    }

    /// When the next timer of a session is to be handled.
    pub(crate) fn next_session_timer_ms(&self) -> Option<u64> {
        if !self.session_timers_run() {
            return None;
        }
        // What waits for room in the mesh or for the store goes on when there is some.
        let is_held = self.is_journal_full() || self.mesh.has_blocked();
        let left = (!self.due_sessions.is_empty() && !is_held).then_some(self.clients.now.mono_ms);
        left.or_else(|| self.clients.session_timers.next_ms())
    }

    /// Whether sessions may end and wills be published: not before all subscriptions are known, nor when the others may have ended.
    pub(crate) fn session_timers_run(&self) -> bool {
        !self.recovery.holds() && self.shutdown.is_none()
    }

    /// When the next look at overdue sends and stashes is due; never while there are none.
    pub(crate) fn next_sweep_ms(&self) -> Option<u64> {
        let any = self.clients.outboxes.in_use() > 0
            || self.clients.stashes.in_use() > 0
            || self.retained_may_expire();
        any.then_some(self.swept_ms + SWEEP_MS)
    }

    fn connection_timer(&mut self, index: u32) {
        let Some(connection) = self.clients.connections.at(index) else { return };
        let id = ConnectionId { index, generation: connection.generation };
        match connection.state {
            State::AwaitsConnect => self.end_connection(id, End::IdleTimeout), // SEED-PROTO-08
            State::Connected => self.check_keepalive(id),
            State::Free | State::Leaving | State::Closing => {}
        }
    }

    /// MQTT-3.1.2-24. A packet only stamps its connection; here the stamp is looked at.
    fn check_keepalive(&mut self, id: ConnectionId) {
        let connection = self.clients.connections.get_mut(id).expect("the caller looked");
        let now_ms = self.clients.now.mono_ms;
        if connection.is_ending {
            return self.end_connection(id, End::PeerClosed);
        }
        let keepalive_s = connection.keepalive_s;
        if !connection.is_read() {
            // While we do not read it, it cannot be heard.
            connection.last_received = u32::try_from(now_ms / STAMP_MS).unwrap_or(u32::MAX);
        }
        let last_ms = u64::from(connection.last_received) * STAMP_MS;
        let (session, listener) = (connection.session, connection.listener);
        let deadline_ms = last_ms + self.silence_max_ms(listener, keepalive_s);
        if now_ms >= deadline_ms {
            self.end_connection(id, End::KeepaliveTimeout);
            return;
        }
        self.clients.connection_timers.set(id.index, deadline_ms);
        if let Some(session) = self.clients.sessions.session_mut(session) {
            session.release_idle();
        }
    }

    fn session_timer(&mut self, id: SessionId) {
        let Some(slot) = self.clients.sessions.slot(id.0) else { return };
        if slot.connection == NO_CONNECTION {
            self.offline_timer(id);
        } else {
            self.flow_timer(id);
        }
    }

    fn flow_timer(&mut self, id: SessionId) {
        let now_ms = self.clients.now.mono_ms;
        let session = &self.settings.session;
        let (retry_ms, rel_ms) = (session.retry_interval_ms, session.await_rel_timeout_ms);
        if retry_ms > 0 && !self.is_v5(id) {
            self.clients.resend_overdue(id, now_ms.saturating_sub(retry_ms));
        }
        if rel_ms > 0
            && let Some(owner) = self.clients.sessions.session_mut(id.0)
        {
            let expired = owner.expire_awaiting_rel(rel_ms, now_ms);
            if !expired.is_empty() {
                for packet_id in expired {
                    self.clients.store_received(id, packet_id, false);
                    self.clients.count_drop(QoS::ExactlyOnce, DropReason::AwaitRelTimeout);
                }
                self.resume_awaiting_rel(id);
            }
        }
        self.arm_flow_timer(id);
    }

    fn is_v5(&self, id: SessionId) -> bool {
        let connection = self.clients.connected(id);
        connection.and_then(|c| self.clients.connections.at(c)).is_some_and(|c| c.is_v5())
    }

    fn resume_awaiting_rel(&mut self, id: SessionId) {
        let Some(index) = self.clients.connected(id) else { return };
        if let Some(connection) = self.clients.connections.at(index) {
            let generation = connection.generation;
            self.resume(ConnectionId { index, generation }, pause::AWAITING_REL);
        }
    }

    /// Sets the timer of a connected session: its next retransmission, or the end of its patience with a PUBREL.
    pub(crate) fn arm_flow_timer(&mut self, id: SessionId) {
        let session = &self.settings.session;
        let retry_ms = if self.is_v5(id) { 0 } else { session.retry_interval_ms };
        let rel_ms = session.await_rel_timeout_ms;
        let Some(owner) = self.clients.sessions.session(id.0) else { return };
        if let Some(deadline_ms) = owner.flow_deadline_ms(retry_ms, rel_ms) {
            self.clients.session_timers.set_earlier(id.0, deadline_ms);
        }
    }

    /// Ends connections that do not read what is sent to them (SEED-LSN-14), and those of which half a packet has
    /// waited too long for its other half.
    fn sweep(&mut self) {
        let now_ms = self.clients.now.mono_ms;
        let sends: Vec<u32> = self.clients.outboxes.overdue(now_ms).collect();
        for index in sends {
            let Some(connection) = self.clients.connections.at(index) else { continue };
            let options = &self.profiles.of(connection.listener).options;
            let timeout_ms = options.send_timeout_ms;
            let before_ms = now_ms.saturating_sub(timeout_ms);
            let late = self.clients.outboxes.get(connection.outbox);
            if timeout_ms > 0
                && options.send_timeout_close
                && late.is_some_and(|o| o.is_overdue(before_ms))
            {
                let id = ConnectionId { index, generation: connection.generation };
                self.end_connection(id, End::SendTimeout);
            }
        }
        let before_ms = now_ms.saturating_sub(self.settings.conn.partial_packet_timeout_ms);
        let halves: Vec<u32> = self.clients.stashes.overdue(before_ms).collect();
        for index in halves {
            let Some(connection) = self.clients.connections.at(index) else { continue };
            if connection.paused == 0 && connection.state == State::Connected {
                let id = ConnectionId { index, generation: connection.generation };
                self.end_connection(id, End::PartialPacket);
            }
        }
    }
}
