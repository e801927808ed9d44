//! Every normative statement that can be tested on a broker has a test (DESIGN section 9).

use std::collections::HashSet;
use std::process::Command;

use ringmq_tests::broker::root;
use ringmq_tests::statements::{Class, read};

/// The lists are whole and well-formed.
#[test]
fn lists_of_statements_are_well_formed() {
    for (file, count) in [("v3.1.1.txt", 142), ("v5.txt", 251)] {
        let list = read(&root().join("tests/statements").join(file));
        let ids: HashSet<&str> = list.iter().map(|statement| statement.id.as_str()).collect();
        assert_eq!((list.len(), ids.len()), (count, count), "{file}");
        for statement in &list {
            let reason = statement.class != Class::Untestable || statement.text.contains(':');
            assert!(reason, "{}: why can it not be tested?", statement.id);
        }
    }
}

/// `scripts/statements` finds a test for each statement of class `broker`.
#[test]
fn every_broker_statement_has_a_test() {
    let output = Command::new(root().join("scripts/statements")).output().expect("python3 runs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
