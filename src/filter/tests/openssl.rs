//! OpenSSL's client against the filter, over TCP, if it is installed.
#![allow(missing_docs, reason = "tests have no readers of documentation")]

mod common;

use common::{Site, settings};
use filter::{Filter, FilterSettings};
use ringmq_filter as filter;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Answers what each client says, until it ends; what came of each connection is told at its end.
fn serve(settings: &Arc<FilterSettings>) -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (settings, (tell, told)) = (Arc::clone(settings), std::sync::mpsc::channel());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = tell.send(echo(&settings, &mut stream.unwrap()));
        }
    });
    (address, told)
}

fn echo(settings: &Arc<FilterSettings>, stream: &mut TcpStream) -> String {
    let (mut filter, mut buffer) = (Filter::new(settings), [0; 4096]);
    loop {
        let len = stream.read(&mut buffer).unwrap_or(0);
        let (mut plain, mut wire) = (vec![], vec![]);
        let result = filter.received(&mut buffer[..len], &mut plain, &mut wire);
        if result.is_ok() && !plain.is_empty() {
            filter.send([&plain[..]].into_iter(), &mut wire).unwrap();
        }
        let _ = stream.write_all(&wire);
        match result {
            Err(error) => return error.reason().to_owned(),
            Ok(()) if filter.is_ended() || len == 0 => {
                let tls = filter.peer().tls.as_ref();
                return tls.map_or("nothing", |tls| tls.version).to_owned();
            }
            Ok(()) => {}
        }
    }
}

/// What `openssl s_client` prints when it says a line, waits for it to come back, and ends.
fn openssl(address: SocketAddr, arguments: &[&str]) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-servername", "localhost"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let _ = input.write_all(b"hello\n");
    // It ends at the end of its input, whatever it still has to read.
    std::thread::sleep(std::time::Duration::from_millis(500));
    drop(input);
    let output = child.wait_with_output().unwrap();
    [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned()).concat()
}

#[test]
fn openssl_agrees() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("openssl is not installed: nothing is tested");
        return;
    }
    let site = Site::new();
    let (address, told) = serve(&settings(&site.options));
    let ca = site.folder.path("ca.pem").display().to_string();
    let session = site.folder.path("session").display().to_string();
    let common = ["-CAfile", &ca, "-verify_return_error", "-alpn", "mqtt"];
    for (version, name) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let first = openssl(address, &[&common[..], &[version, "-sess_out", &session]].concat());
        assert!(first.contains("New, ") && first.contains("ALPN protocol: mqtt"), "{first}");
        assert!(first.contains("\nhello\n"), "{first}");
        assert_eq!(told.recv().unwrap(), name);
        let second = openssl(address, &[&common[..], &[version, "-sess_in", &session]].concat());
        assert!(second.contains("Reused, "), "{second}");
        assert_eq!(told.recv().unwrap(), name);
    }
    // OpenSSL's own client speaks 1.1 only if it is told not to care.
    let old = openssl(address, &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]);
    assert!(old.contains("alert handshake failure"), "{old}");
    assert_eq!(told.recv().unwrap(), "tls_version");
}
