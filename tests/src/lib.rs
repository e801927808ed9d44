//! End-to-end tests of RingMQ: the real binary, raw packets, real clients.
//!
//! - [`broker`] starts the built binary on a free port and stops it, and asserts that it ended well;
//! - [`packet`] is a wire codec of its own: it builds any bytes, right or wrong, and checks every packet the broker
//!   sends strictly. Each packet received is also decoded by the `mqtt` crate, so that the two must agree;
//! - [`client`] is a blocking client over one TCP stream, made of `send` and `expect`;
//! - [`simulation`] runs real shards in one thread with a seeded scheduler and a virtual clock;
//! - [`crash`] kills the broker in the middle of load and looks for what is lost;
//! - [`statements`] reads the lists of normative statements and which tests name them.
//!
//! The tests are in `tests/tests`, one file a chapter. A test carries the ids of the statements it shows in its doc comment and the
//! first of them in its name; `scripts/statements` lists the ids that no test carries.
//!
//! Environment: `RINGMQ_BIN` names the binary (default: the release build, else the debug build of this checkout);
//! `RINGMQ_TEST_BROKER=host:port` runs the tests that need no settings of their own against a broker that is already running;
//! `RINGMQ_TEST_SHARDS` is the number of shards of the brokers the tests start (default 2).

#![forbid(unsafe_code)]

pub mod broker;
pub mod certificates;
pub mod client;
pub mod commands;
pub mod crash;
pub mod listening;
pub mod packet;
pub mod simulation;
pub mod statements;
pub mod tls;
pub mod websocket;

pub use Version::{V5, V31, V311};
pub use broker::{Broker, shared, wait_until};
pub use client::{Client, QUIET, WAIT, id, topic};
pub use packet::{
    Ack, ConnAck, Connect, Disconnect, Packet, Property, Publish, SubAck, Subscribe, Version, Will,
};
