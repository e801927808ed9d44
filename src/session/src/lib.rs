//! One client's state machine: `QoS` 0, 1 and 2, the inflight window, the message queue, the will, topic aliases,
//! expiry; and the rules of access. Sans-I/O: time is an argument, what is to be sent is the caller's.
#![forbid(unsafe_code)]

pub mod acl;
mod alias;
mod awaiting_rel;
mod delayed;
mod inflight;
mod message;
mod mqueue;
mod session;
mod stored;
mod subscriptions;
mod will;

pub use alias::{InboundAliases, OutboundAliases, TopicForm};
pub use awaiting_rel::{AwaitingRel, Received};
pub use delayed::{Delay, Delayed, DelayedId, DelayedIdError, DelayedMessages};
pub use inflight::{Awaiting, Entry, Inflight, SPAN_MAX};
pub use message::{Message, MessageId, MessageIds, Origin, Publication, expiry_interval_left_s};
pub use mqueue::{Delivery, Mqueue, MqueueLimits, Pushed};
pub use session::{Acknowledged, NEVER_EXPIRES_S, Session};
pub use stored::{Settled, StoredCounts, StoredPlace};
pub use subscriptions::{Subscription, Subscriptions};
pub use will::{Will, WillDue, will_due};
