//! Tells a service manager how the broker is, if there is one that asks (`NOTIFY_SOCKET`, as systemd has it).

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends a state such as `READY=1`. Nobody asks: nothing happens. A failure is logged: the broker runs without it.
pub fn state(state: &str) {
    if let Some(path) = env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&path, state)
    {
        log::warn!("cannot tell {state} to NOTIFY_SOCKET: {error}");
    }
}

fn send(path: &OsString, state: &str) -> io::Result<()> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_reach_a_named_socket() {
        let name = format!("ringmq-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        send(&OsString::from(format!("@{name}")), "READY=1").unwrap();
        let mut bytes = [0; 16];
        let length = manager.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"READY=1");
    }
}
