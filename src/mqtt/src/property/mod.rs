//! The properties of MQTT 5.0 (v5 section 2.2.2).

mod block;
mod forwarded;
mod id;
mod user;

pub(crate) use block::{Properties, Property, PropertyBlock, put_block};
pub use forwarded::{Forwarded, ForwardedFields, SubscriptionIds};
pub use id::PropertyId;
pub use user::UserProperties;
