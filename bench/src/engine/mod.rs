//! The client side of many MQTT connections, without I/O: the reactor ([`reactor::Core`]) calls an [`Engine`] with what
//! happened and drains what it wants done.
//!
//! # The border
//! An [`Engine`] belongs to one thread. It knows connections, whole packets, bytes to be sent and time, and nothing of
//! what the clients are for; that is the [`Agent`]'s. Clients are numbers from 0, chosen by the agent, dense per thread. The
//! agent is told
//!
//! | call | when |
//! | --- | --- |
//! | [`Agent::start`] | once, in the first tick |
//! | [`Agent::opened`] | a connection asked for by [`Net::open`] is there: write a CONNECT |
//! | [`Agent::secured`] | its layers ([`Agent::layers`]: TLS, WebSocket) are up; what was written goes out now |
//! | [`Agent::packet`] | a whole packet has come; read in place |
//! | [`Agent::failed`] | a connection asked for could not be opened |
//! | [`Agent::closed`] | a connection ended that [`Net::close`] did not end |
//! | [`Agent::drained`] | all bytes of a client are with the kernel, after [`Net::when_drained`] |
//! | [`Agent::timer`] | a [`Timer`] given to [`Net::at`] is due |
//! | [`Agent::command`] | something came from [`Fleet::send`] |
//!
//! and does everything by its [`Net`]: opens and closes, appends packets to a client's outbox ([`Net::outbox`]; they are
//! sent together at the end of the tick), sets timers, and stops the thread. After [`Agent::failed`], [`Agent::closed`] and
//! [`Net::close`] the client has no connection and may be opened again at once.
//!
//! Timers are never taken back. A timer carries a tag of the agent's own choice; an agent whose clients come and go puts a
//! count of the connection in it, and ignores what is stale.
//!
//! An idle client costs the engine 16 bytes for the connection and 4 for its number, and 16 for a timer. Buffers are there
//! only while bytes wait in them. Layers are there only for connections that have them: 8 bytes a slot, and what TLS takes.

mod agent;
mod connections;
mod core;
mod fleet;
mod io;
mod layers;
mod net;
mod reassembly;
mod schedule;

pub use agent::{Agent, CloseCause, Route, Timer};
pub use core::Engine;
pub use fleet::{Fleet, FleetError, FleetSetup};
pub use net::Net;
