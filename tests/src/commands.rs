//! Clients of others as child processes.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// Runs a command that must succeed.
///
/// # Panics
/// When it does not run, or does not end with exit code 0.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{} does not run ({error}): run scripts/install-test-deps", program(command))
    });
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// A subscriber that has its SUBACK; its lines of output are read by `line`.
#[derive(Debug)]
pub struct Subscriber {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Subscriber {
    /// Starts mosquitto_sub and waits for its SUBACK.
    ///
    /// # Panics
    /// When it does not come so far.
    #[track_caller]
    pub fn start(command: &mut Command) -> Subscriber {
        // With -d it says when it is subscribed; stdbuf because a pipe would hold the lines back.
        let mut line_buffered = Command::new("stdbuf");
        line_buffered.args(["-oL", &program(command)]).args(command.get_args()).arg("-d");
        let child = line_buffered.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("stdbuf and mosquitto run: run scripts/install-test-deps");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut subscriber = Subscriber { child, output };
        subscriber.wait_for("Subscribed");
        subscriber
    }

    /// The next line with this text.
    ///
    /// # Panics
    /// When it ends before.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let count = self.output.read_line(&mut line).expect("text");
            assert!(count > 0, "it ended before {text:?}");
            if line.contains(text) {
                return line.trim().to_owned();
            }
        }
    }

    /// Waits for its end with exit code 0.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn end(mut self) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("text");
        let status = self.child.wait().expect("it can be waited for");
        assert!(status.success(), "{status}: {rest}");
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
