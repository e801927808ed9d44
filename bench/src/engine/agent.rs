//! What an engine's clients are for.

use std::net::SocketAddr;

use filter::ClientFilterSettings;

use super::Net;
use crate::wire::Frame;

/// Where a client connects to, and from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Route {
    /// The local address; its port is 0 to let the kernel choose.
    pub from: Option<SocketAddr>,
    /// The broker.
    pub to: SocketAddr,
}

/// Names a point in time to the agent that set it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timer {
    /// A client, or any other number.
    pub client: u32,
    /// What is due, and anything else the agent wants back.
    pub tag: u32,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CloseCause {
    /// The broker closed it.
    PeerClosed,
    /// Receiving or sending failed with this errno.
    Failed(i32),
    /// The broker sent what is no MQTT packet.
    Malformed,
    /// TLS or WebSocket cannot go on, for this reason ([`filter::FilterError::reason`]).
    Layers(&'static str),
}

/// The clients of one thread: what to do when something happened to one.
pub trait Agent: Sized + 'static {
    /// What the main thread sends.
    type Command: Send + 'static;

    /// The first call.
    fn start(&mut self, net: &mut Net);
    /// The way a client is to take, asked for each connection.
    fn route(&mut self, client: u32) -> Route;
    /// What stands between the wire and MQTT on the way a client takes, asked for each connection.
    fn layers(&self, client: u32) -> Option<&ClientFilterSettings> {
        let _ = client;
        None
    }
    /// The client has a connection.
    fn opened(&mut self, net: &mut Net, client: u32);
    /// The layers of a client's connection are up; `is_resumed`: TLS by a ticket of before.
    fn secured(&mut self, net: &mut Net, client: u32, is_resumed: bool) {
        let _ = (net, client, is_resumed);
    }
    /// A whole packet came.
    fn packet(&mut self, net: &mut Net, client: u32, frame: &Frame<'_>);
    /// The client could not be connected.
    fn failed(&mut self, net: &mut Net, client: u32, errno: i32);
    /// The client has lost its connection.
    fn closed(&mut self, net: &mut Net, client: u32, cause: CloseCause);
    /// What the client had to send is with the kernel; called once after [`Net::when_drained`].
    fn drained(&mut self, net: &mut Net, client: u32) {
        let _ = (net, client);
    }
    /// A timer is due.
    fn timer(&mut self, net: &mut Net, timer: Timer);
    /// The main thread wants something.
    fn command(&mut self, net: &mut Net, command: Self::Command);
}
