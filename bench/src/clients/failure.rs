//! Why single clients failed. They never stop a run; they are counted.

use super::Stage;
use std::io;

/// Why a client failed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Failure {
    /// The connection could not be opened: errno.
    Connect(i32),
    /// The connection broke: errno.
    Broken(i32),
    /// The broker closed the connection at this stage.
    Closed(Stage),
    /// The broker sent what is no MQTT packet.
    Malformed,
    /// TLS or WebSocket could not go on.
    Layers(&'static str),
    /// The broker refused the client.
    ConnAck(u8),
    /// The broker refused the subscription.
    SubAck(u8),
    /// The broker said goodbye.
    Disconnect(u8),
}

impl Failure {
    /// One line for people, the same for all clients that failed for this reason.
    pub fn text(self) -> String {
        match self {
            Failure::Connect(libc::EADDRNOTAVAIL) => {
                "connect: the port range of the source addresses is used up; give more with --ifaddr"
                    .to_owned()
            }
            Failure::Connect(errno @ (libc::EMFILE | libc::ENFILE)) => {
                format!("connect: {}; raise the limit of open files (ulimit -n)", errno_text(errno))
            }
            Failure::Connect(errno) => format!("connect: {}", errno_text(errno)),
            Failure::Broken(errno) => format!("connection broken: {}", errno_text(errno)),
            Failure::Closed(stage) => format!("closed by the broker ({stage:?})"),
            Failure::Malformed => "malformed packet from the broker".to_owned(),
            Failure::Layers(reason) => format!("TLS or WebSocket failed: {reason}"),
            Failure::ConnAck(code) => format!("CONNACK 0x{code:02X}"),
            Failure::SubAck(code) => format!("SUBACK 0x{code:02X}"),
            Failure::Disconnect(code) => format!("DISCONNECT 0x{code:02X} from the broker"),
        }
    }
}

/// The text of an errno, without the number that Rust appends.
fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_one_line_that_says_what_helps() {
        assert_eq!(Failure::Connect(libc::ECONNREFUSED).text(), "connect: Connection refused");
        assert!(Failure::Connect(libc::EADDRNOTAVAIL).text().contains("--ifaddr"));
        assert!(Failure::Connect(libc::EMFILE).text().contains("ulimit -n"));
        assert_eq!(Failure::Closed(Stage::Ready).text(), "closed by the broker (Ready)");
        assert_eq!(Failure::ConnAck(5).text(), "CONNACK 0x05");
    }
}
