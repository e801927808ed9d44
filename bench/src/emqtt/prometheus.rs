//! `GET /metrics` in Prometheus' text format, on a thread of its own.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::counters::{Counter, ThreadStats, Timing, Totals};
use crate::error::BenchError;

/// A client of the endpoint has this long for each read and write.
const PATIENCE: Duration = Duration::from_secs(2);
/// A request is not longer.
const REQUEST_MAX: usize = 8192;

/// Serves until the process ends.
pub fn serve(address: SocketAddr, threads: Vec<Arc<ThreadStats>>) -> Result<(), BenchError> {
    let listener = TcpListener::bind(address)
        .map_err(BenchError::io("cannot listen for --restapi; is the port taken?"))?;
    std::thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(move || {
            for stream in listener.incoming() {
                match stream {
                    // Whoever asks is told; what becomes of it is theirs.
                    Ok(stream) => drop(answer(stream, &threads)),
                    // Out of files, perhaps; that passes.
                    Err(_) => std::thread::sleep(Duration::from_millis(100)),
                }
            }
        })
        .map_err(BenchError::io("cannot start a thread"))?;
    Ok(())
}

fn answer(mut stream: TcpStream, threads: &[Arc<ThreadStats>]) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") && request.len() < REQUEST_MAX {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            break;
        }
        request.extend_from_slice(&buffer[..len]);
    }
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split('?').next().unwrap_or_default();
    let (status, body) = match (method, path) {
        ("GET", "/metrics") => ("200 OK", text(&Totals::of(threads.iter().map(Arc::as_ref)))),
        ("GET", _) => ("404 Not Found", "only /metrics is here\n".to_owned()),
        _ => ("405 Method Not Allowed", "GET /metrics\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

/// All counters and distributions.
fn text(totals: &Totals) -> String {
    let mut out = String::new();
    for counter in Counter::ALL {
        let name = counter.name();
        let value = totals.get(counter);
        let _ = writeln!(out, "# HELP {name} {name}\n# TYPE {name} counter\n{name} {value}");
    }
    for timing in Timing::ALL {
        let name = timing.name();
        let (buckets, count, sum_ms) = totals.timing(timing);
        let _ = writeln!(out, "# HELP {name} {name}, milliseconds\n# TYPE {name} histogram");
        for (bound_ms, bucket) in timing.bounds_ms().iter().zip(buckets) {
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound_ms}\"}} {bucket}");
        }
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_count {count}\n{name}_sum {sum_ms}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_counters_and_whole_histograms() {
        let stats = ThreadStats::default();
        stats.add(Counter::Recv, 7);
        stats.latency(6);
        stats.latency(40_000);
        let text = text(&Totals::of([&stats]));
        assert!(text.contains("# TYPE recv counter\nrecv 7\n"), "{text}");
        assert!(text.contains("e2e_latency_bucket{le=\"5\"} 0\n"), "{text}");
        assert!(text.contains("e2e_latency_bucket{le=\"10\"} 1\n"), "{text}");
        assert!(text.contains("e2e_latency_bucket{le=\"30000\"} 1\n"), "{text}");
        assert!(text.contains("e2e_latency_bucket{le=\"+Inf\"} 2\n"), "{text}");
        assert!(text.contains("e2e_latency_count 2\ne2e_latency_sum 40006\n"), "{text}");
        assert!(text.contains("mqtt_client_tcp_handshake_duration_count 0\n"), "{text}");
    }
}
