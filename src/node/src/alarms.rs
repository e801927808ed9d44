//! The alarms of the node: what is wrong now, since when, and what was (SEED-OBS-03, SEED-SYS-09).
//!
//! Whoever watches something raises and clears an alarm by its id, as often as they look: only a change counts. Ids are words
//! of the program, so the list of active ones is bounded by the program text; the history keeps the last [`HISTORY_MAX`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Alarms that are over and still shown, and changes that may be read later.
pub const HISTORY_MAX: usize = 256;

/// Time between two log lines of an alarm that comes and goes.
const LOG_INTERVAL_MS: u64 = 60_000;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Somebody should look.
    Warning,
    /// Part of the service is refused.
    Error,
    /// Data is in danger, or the whole service is refused.
    Critical,
}

impl Severity {
    /// As messages and listings have it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// What an alarm is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlarmKind {
    /// Its id: a level of a topic.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is, in a few words.
    pub title: &'static str,
}

/// The process has more memory than `overload.memory_high_watermark`.
pub const OVERLOAD_MEMORY: AlarmKind = AlarmKind {
    id: "overload_memory",
    severity: Severity::Critical,
    title: "too much memory in use: new clients are refused",
};
/// The ticks of a shard are longer than `overload.tick_time`.
pub const OVERLOAD_TICK_TIME: AlarmKind = AlarmKind {
    id: "overload_tick_time",
    severity: Severity::Error,
    title: "ticks take too long: new clients are refused",
};
/// More than `overload.mesh_queue` messages wait between shards.
pub const OVERLOAD_MESH_QUEUE: AlarmKind = AlarmKind {
    id: "overload_mesh_queue",
    severity: Severity::Error,
    title: "too much waits between shards: new clients are refused",
};
/// The store cannot write.
pub const STORE_FAILING: AlarmKind = AlarmKind {
    id: "store_failing",
    severity: Severity::Critical,
    title: "the store cannot write: messages of QoS 1 and 2 are refused",
};
/// Something of the store cannot be read. Active until the next start: what it was is not whole before somebody has mended it.
pub const STORE_DAMAGED: AlarmKind = AlarmKind {
    id: "store_damaged",
    severity: Severity::Critical,
    title: "the store is damaged: part of what it kept cannot be read",
};
/// Queues of sessions are above `mqtt.mqueue.high_watermark` (SEED-SESS-10).
pub const QUEUE_HIGH_WATERMARK: AlarmKind = AlarmKind {
    id: "queue_high_watermark",
    severity: Severity::Warning,
    title: "message queues of sessions fill up",
};

/// An alarm that is active, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// What it is about.
    pub kind: AlarmKind,
    /// What was found.
    pub summary: String,
    /// Since when, in milliseconds of the Unix epoch.
    pub raised_unix_ms: u64,
    /// Until when; none: it is active.
    pub cleared_unix_ms: Option<u64>,
}

#[derive(Debug, Default)]
struct Log {
    /// When a line was last written.
    at_ms: Option<u64>,
    /// Raised since without one.
    unsaid: u64,
    /// Whether the present one was said, so that its end is.
    is_said: bool,
}

#[derive(Debug, Default)]
struct Inner {
    active: Vec<Alarm>,
    history: VecDeque<Alarm>,
    /// Alarms as they were raised and cleared, in order.
    changes: VecDeque<Alarm>,
    /// How many changes there ever were.
    sequence: u64,
    log: BTreeMap<&'static str, Log>,
}

/// The alarms of a node.
#[derive(Debug, Default)]
pub struct Alarms {
    inner: Mutex<Inner>,
}

impl Alarms {
    /// Raises an alarm, or says what is found now of one that is active.
    pub fn raise(&self, kind: &AlarmKind, summary: impl Into<String>) {
        self.raise_at(kind, summary.into(), unix_ms());
    }

    /// Clears an alarm, if it is active.
    pub fn clear(&self, kind: &AlarmKind) {
        self.clear_at(kind, unix_ms());
    }

    /// Raises it with a summary, clears it without.
    pub fn set(&self, kind: &AlarmKind, found: Option<String>) {
        match found {
            Some(summary) => self.raise(kind, summary),
            None => self.clear(kind),
        }
    }

    /// Those that are active, in the order they were raised.
    #[must_use]
    pub fn active(&self) -> Vec<Alarm> {
        self.lock().active.clone()
    }

    /// Those that are over, the last one first.
    #[must_use]
    pub fn history(&self) -> Vec<Alarm> {
        self.lock().history.iter().rev().cloned().collect()
    }

    /// What has changed since a point that an earlier call gave (0: since the start), and the point to ask from next time. Of
    /// very many changes the oldest are gone.
    #[must_use]
    pub fn changes_since(&self, sequence: u64) -> (Vec<Alarm>, u64) {
        let inner = self.lock();
        let missed = usize::try_from(inner.sequence.saturating_sub(sequence)).unwrap_or(usize::MAX);
        let skip = inner.changes.len().saturating_sub(missed);
        (inner.changes.iter().skip(skip).cloned().collect(), inner.sequence)
    }

    fn raise_at(&self, kind: &AlarmKind, summary: String, now_ms: u64) {
        let mut inner = self.lock();
        if let Some(known) = inner.active.iter_mut().find(|alarm| alarm.kind.id == kind.id) {
            known.summary = summary;
            return;
        }
        let alarm = Alarm { kind: *kind, summary, raised_unix_ms: now_ms, cleared_unix_ms: None };
        let log = inner.log.entry(kind.id).or_default();
        log.is_said = log.at_ms.is_none_or(|at_ms| now_ms.saturating_sub(at_ms) >= LOG_INTERVAL_MS);
        if log.is_said {
            let unsaid = std::mem::take(&mut log.unsaid);
            log.at_ms = Some(now_ms);
            let again = if unsaid > 0 {
                format!(" (raised {unsaid} more times since it was last said)")
            } else {
                String::new()
            };
            log::warn!("alarm {} raised: {}{again}", kind.id, alarm.summary);
        } else {
            log.unsaid += 1;
        }
        inner.active.push(alarm.clone());
        inner.changed(alarm);
    }

    fn clear_at(&self, kind: &AlarmKind, now_ms: u64) {
        let mut inner = self.lock();
        let Some(place) = inner.active.iter().position(|alarm| alarm.kind.id == kind.id) else {
            return;
        };
        let mut alarm = inner.active.remove(place);
        alarm.cleared_unix_ms = Some(now_ms);
        if inner.log.get(kind.id).is_some_and(|log| log.is_said) {
            log::info!("alarm {} cleared", kind.id);
        }
        keep(&mut inner.history, alarm.clone());
        inner.changed(alarm);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn changed(&mut self, alarm: Alarm) {
        self.sequence += 1;
        keep(&mut self.changes, alarm);
    }
}

fn keep(list: &mut VecDeque<Alarm>, alarm: Alarm) {
    if list.len() == HISTORY_MAX {
        list.pop_front();
    }
    list.push_back(alarm);
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_raised_once_and_remembered_when_it_is_over() {
        let alarms = Alarms::default();
        alarms.raise_at(&OVERLOAD_MEMORY, "10 of 9".to_owned(), 1000);
        alarms.raise_at(&OVERLOAD_MEMORY, "11 of 9".to_owned(), 2000);
        let active = alarms.active();
        assert_eq!(active.len(), 1);
        assert_eq!((active[0].raised_unix_ms, active[0].summary.as_str()), (1000, "11 of 9"));
        alarms.clear_at(&QUEUE_HIGH_WATERMARK, 2500);
        alarms.clear_at(&OVERLOAD_MEMORY, 3000);
        alarms.clear_at(&OVERLOAD_MEMORY, 4000);
        assert_eq!(alarms.active(), []);
        let history = alarms.history();
        assert_eq!((history.len(), history[0].cleared_unix_ms), (1, Some(3000)));
    }

    #[test]
    fn changes_are_read_once_in_order_and_are_bounded() {
        let alarms = Alarms::default();
        alarms.raise_at(&OVERLOAD_TICK_TIME, String::new(), 1);
        let (first, point) = alarms.changes_since(0);
        assert_eq!((first.len(), point), (1, 1));
        alarms.clear_at(&OVERLOAD_TICK_TIME, 2);
        alarms.raise_at(&OVERLOAD_MEMORY, String::new(), 3);
        let (next, point) = alarms.changes_since(point);
        let told: Vec<_> = next.iter().map(|one| (one.kind.id, one.cleared_unix_ms)).collect();
        assert_eq!(told, [("overload_tick_time", Some(2)), ("overload_memory", None)]);
        assert_eq!(alarms.changes_since(point), (vec![], 3));
        for at_ms in 0..1000 {
            alarms.raise_at(&OVERLOAD_TICK_TIME, String::new(), at_ms);
            alarms.clear_at(&OVERLOAD_TICK_TIME, at_ms);
        }
        assert_eq!(alarms.changes_since(0).0.len(), HISTORY_MAX);
        assert_eq!(alarms.history().len(), HISTORY_MAX);
    }

    #[test]
    fn one_that_comes_and_goes_is_said_once_a_minute() {
        let alarms = Alarms::default();
        for at_ms in 0..10 {
            alarms.raise_at(&OVERLOAD_MEMORY, String::new(), at_ms);
            alarms.clear_at(&OVERLOAD_MEMORY, at_ms);
        }
        let log = |alarms: &Alarms| {
            let inner = alarms.lock();
            let log = &inner.log["overload_memory"];
            (log.at_ms, log.unsaid, log.is_said)
        };
        assert_eq!(log(&alarms), (Some(0), 9, false));
        alarms.raise_at(&OVERLOAD_MEMORY, String::new(), LOG_INTERVAL_MS);
        assert_eq!(log(&alarms), (Some(LOG_INTERVAL_MS), 0, true));
    }
}
