//! The data folder in a folder of the test's own.

use super::*;

/// A folder that goes with the test.
struct Temporary(DataFolder);

impl Temporary {
    fn new(name: &str) -> Temporary {
        let path = std::env::temp_dir().join(format!("ringmq-{name}-{}", std::process::id()));
        let folder = DataFolder::new(path);
        folder.create().unwrap();
        Temporary(folder)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0.path);
    }
}

#[test]
fn a_folder_has_one_broker_at_a_time() {
    let Temporary(folder) = &Temporary::new("lock");
    assert!(!folder.is_taken());
    let lock = folder.lock().unwrap();
    assert!(folder.is_taken());
    assert_eq!(folder.pid(), i32::try_from(std::process::id()).ok());
    let taken = folder.lock().unwrap_err();
    assert!(matches!(taken, DataFolderError::Taken { .. }), "{taken}");
    lock.release();
    assert!(!folder.is_taken());
    assert_eq!(folder.pid(), None);
    folder.lock().unwrap();
}

#[test]
fn a_dead_brokers_socket_is_replaced() {
    let Temporary(folder) = &Temporary::new("stale");
    let lock = folder.lock().unwrap();
    drop(folder.listen(&lock).unwrap());
    assert!(folder.socket().exists());
    assert!(folder.connect().is_err());
    let listener = folder.listen(&lock).unwrap();
    let mode = fs::metadata(folder.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    folder.connect().unwrap();
    drop(listener);
}

#[test]
fn a_long_path_has_a_socket_too() {
    let Temporary(outer) = &Temporary::new("long");
    let folder = DataFolder::new(outer.path().join("d".repeat(120)));
    folder.create().unwrap();
    let lock = folder.lock().unwrap();
    let _listener = folder.listen(&lock).unwrap();
    folder.connect().unwrap();
}

#[test]
fn a_launch_is_found_again() {
    let Temporary(folder) = &Temporary::new("launch");
    assert_eq!(folder.launch(), None);
    let launch = Launch {
        node: "a@b".to_owned(),
        arguments: vec!["--set".to_owned(), "node.name=a@b".to_owned()],
    };
    folder.save_launch(&launch).unwrap();
    assert_eq!(folder.launch(), Some(launch));
    fs::write(folder.launch_file(), "{").unwrap();
    assert_eq!(folder.launch(), None);
}
