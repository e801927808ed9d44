//! `tuning/tune` (FEATURES TUNE-01 to TUNE-15), on a copy of the kernel's files: what it sets, what it leaves, and that revert
//! gives back every byte, after a kill too. Of the machine's own values it touches one, and puts it back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use ringmq_tests::id;

/// A kernel's files as a machine with two CPUs and a network card of one queue has them.
const KERNEL: &[(&str, &str)] = &[
    ("proc/meminfo", "MemTotal: 24000000 kB\nMemAvailable: 23000000 kB"),
    ("proc/sys/fs/file-max", "9223372036854775807"),
    ("proc/sys/fs/nr_open", "1048576"),
    ("proc/sys/net/core/somaxconn", "4096"),
    ("proc/sys/net/core/rmem_max", "212992"),
    ("proc/sys/net/core/rps_sock_flow_entries", "0"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999"),
    ("proc/sys/net/ipv4/ip_local_reserved_ports", "8000-8090,9000"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t33554432"),
    ("proc/sys/net/ipv4/tcp_mem", "287901\t383869\t575802"),
    ("proc/sys/net/ipv4/tcp_fin_timeout", "60"),
    ("proc/sys/net/ipv4/tcp_tw_reuse", "2"),
    ("proc/sys/kernel/io_uring_disabled", "0"),
    ("sys/devices/system/cpu/online", "0-1"),
    ("sys/class/net/eth0/device/vendor", "0x1af4"),
    ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0"),
    ("sys/class/net/eth0/queues/rx-0/rps_flow_cnt", "0"),
    ("sys/class/net/lo/queues/rx-0/rps_cpus", "0"),
];

/// A folder with the kernel's files, tune's saved values and its files for a reboot; removed at the end.
struct Machine(PathBuf);

impl Machine {
    fn new() -> Machine {
        let machine = Machine(std::env::temp_dir().join(format!("ringmq-tune-{}", id())));
        for (path, value) in KERNEL {
            let path = machine.kernel().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{value}\n")).unwrap();
        }
        machine
    }
    fn kernel(&self) -> PathBuf {
        self.0.join("kernel")
    }
    fn sysctl(&self, name: &str) -> PathBuf {
        self.kernel().join("proc/sys").join(name)
    }
    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.sysctl(name)).unwrap().trim_end().to_owned()
    }
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tune(arguments);
        command
            .env("RINGMQ_TUNE_KERNEL", self.kernel())
            .env("RINGMQ_TUNE_STATE", self.0.join("state"))
            .env("RINGMQ_TUNE_ROOT", self.0.join("root"));
        command
    }
    /// Runs to the given exit code; the standard output.
    #[track_caller]
    fn run(&self, arguments: &[&str], code: i32) -> String {
        let output = self.command(arguments).output().unwrap();
        expect(&output, code);
        String::from_utf8(output.stdout).unwrap()
    }
    /// Every file with its content.
    fn files(&self, below: &str) -> BTreeMap<PathBuf, String> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.0.join(below)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.insert(path.clone(), fs::read_to_string(path).unwrap());
                }
            }
        }
        files
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tune(arguments: &[&str]) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tuning/tune"));
    command.args(arguments).stdin(Stdio::null());
    command
}

#[track_caller]
fn expect(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
}

#[test]
fn a_wrong_command_line_gets_one_line_and_exit_code_2() {
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["check", "--frobnicate"],
        &["check", "--connections"],
        &["check", "--connections", "many"],
        &["check", "--connections", "0"],
        &["check", "plan"],
    ] {
        let output = tune(arguments).output().unwrap();
        expect(&output, 2);
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{output:?}");
    }
    expect(&tune(&["--help"]).output().unwrap(), 0);
}

#[test]
fn apply_verify_and_revert_leave_every_byte_as_it_was() {
    let machine = Machine::new();
    let before = machine.files("kernel");
    machine.run(&["check"], 1);
    machine.run(&["verify"], 1);
    let plan = machine.run(&["plan"], 0);
    assert_eq!(machine.run(&["apply", "--dry-run"], 0), plan);
    assert!(plan.contains("echo '1024 65535' >"), "{plan}");
    assert_eq!(machine.files("kernel"), before);

    let applied = machine.run(&["apply", "--connections", "1000000", "--persist"], 0);
    assert!(applied.contains("gone     net.ipv4.tcp_tw_recycle"), "{applied}");
    assert!(applied.contains("missing  net.core.netdev_max_backlog"), "{applied}");
    machine.run(&["verify"], 0);
    machine.run(&["check"], 0);
    let after = machine.files("");
    for (name, value) in [
        ("fs/file-max", "9223372036854775807"),
        ("net/core/somaxconn", "32768"),
        ("net/ipv4/ip_local_reserved_ports", "8000-8090,9000,1883,8883,18083"),
        ("net/ipv4/tcp_rmem", "4096 16384 33554432"),
        ("net/ipv4/tcp_mem", "1000000 1333333 2000000"),
        ("net/ipv4/tcp_fin_timeout", "15"),
        ("net/ipv4/tcp_tw_reuse", "2"),
        ("../../sys/class/net/eth0/queues/rx-0/rps_cpus", "00000003"),
        ("../../sys/class/net/lo/queues/rx-0/rps_cpus", "0"),
    ] {
        assert_eq!(machine.read(name), value, "{name}");
    }
    let kept = machine.read("../../../root/etc/sysctl.d/90-ringmq.conf");
    assert!(kept.contains("\n-net.core.somaxconn = 32768\n"), "{kept}");
    let kept = machine.read("../../../root/etc/security/limits.d/90-ringmq.conf");
    assert!(kept.contains("hard nofile 1048576"), "{kept}");
    machine.run(&["apply", "--connections", "1000000", "--persist"], 0);
    assert_eq!(machine.files(""), after, "a second apply changes nothing");

    // More of them: the values from before stay those from before the first apply.
    machine.run(&["apply", "--connections", "2000000", "--client"], 0);
    machine.run(&["verify"], 0);
    assert_eq!(machine.read("net/ipv4/tcp_tw_reuse"), "1");
    assert_eq!(machine.read("fs/nr_open"), "2097152");
    machine.run(&["revert"], 0);
    assert_eq!(machine.files(""), before, "nothing but the kernel's files, as they were");
    assert!(machine.run(&["revert"], 0).starts_with("nothing to revert"));
}

#[test]
fn a_killed_apply_can_be_reverted() {
    let machine = Machine::new();
    let before = machine.files("kernel");
    for delay_ms in (10..=250).step_by(20) {
        let mut apply = machine
            .command(&["apply", "--persist"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(delay_ms));
        apply.kill().unwrap();
        apply.wait().unwrap();
        machine.run(&["revert"], 0);
        assert_eq!(machine.files("kernel"), before, "killed after {delay_ms} ms");
        assert!(machine.files("root").is_empty(), "killed after {delay_ms} ms");
    }
}

#[test]
fn a_refused_value_is_reported_and_the_rest_goes_on() {
    // Nobody may write this one, root neither.
    let read_only = "/proc/sys/kernel/random/poolsize";
    if !Path::new(read_only).exists() {
        return;
    }
    let machine = Machine::new();
    fs::remove_file(machine.sysctl("net/core/somaxconn")).unwrap();
    symlink(read_only, machine.sysctl("net/core/somaxconn")).unwrap();
    let before = machine.files("kernel");
    let applied = machine.run(&["apply"], 0);
    assert!(applied.contains("refused  net.core.somaxconn"), "{applied}");
    assert_eq!(machine.read("net/ipv4/tcp_fin_timeout"), "15");
    assert!(machine.run(&["verify"], 0).contains("1 refused by the kernel"));
    machine.run(&["check"], 1);
    machine.run(&["revert"], 0);
    assert_eq!(machine.files("kernel"), before);
}

#[test]
fn a_file_of_somebody_else_is_not_overwritten() {
    let machine = Machine::new();
    let before = machine.files("kernel");
    let file = machine.0.join("root/etc/sysctl.d/90-ringmq.conf");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "vm.swappiness = 10\n").unwrap();
    machine.run(&["apply", "--persist"], 1);
    assert_eq!(fs::read_to_string(&file).unwrap(), "vm.swappiness = 10\n");
    assert_eq!(machine.files("kernel"), before);
}

/// One value of this machine itself, if it lets us: how long a closed connection waits for its peer.
#[test]
fn a_value_of_this_machine_comes_and_goes() {
    let real = Path::new("/proc/sys/net/ipv4/tcp_fin_timeout");
    let Ok(before) = fs::read_to_string(real) else { return };
    if fs::write(real, &before).is_err() || before.trim().parse::<u32>().unwrap() <= 15 {
        return;
    }
    let machine = Machine::new();
    fs::remove_file(machine.sysctl("net/ipv4/tcp_fin_timeout")).unwrap();
    symlink(real, machine.sysctl("net/ipv4/tcp_fin_timeout")).unwrap();
    let applied = machine.command(&["apply"]).output().unwrap();
    let now = fs::read_to_string(real).unwrap();
    let verified = machine.command(&["verify"]).output().unwrap();
    let reverted = machine.command(&["revert"]).output().unwrap();
    let restored = fs::read_to_string(real).unwrap();
    fs::write(real, &before).unwrap();
    expect(&applied, 0);
    expect(&verified, 0);
    expect(&reverted, 0);
    assert_eq!((now.trim(), restored), ("15", before));
}
