//! docs/reference/methods.md has a row for every fault of every method's reference.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use halfheard_shared::faults::Fault;
use std::collections::BTreeMap;

/// The section of what concerns all methods.
const ALL: &str = "All methods";

/// By section, the faults that the last column of its tables names.
fn documented() -> BTreeMap<String, Vec<Fault>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/methods.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut sections: BTreeMap<String, Vec<Fault>> = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.trim_matches('`').to_owned();
        } else if line.starts_with("| ") {
            let cells = line.trim_end_matches('|').rsplit('|');
            let switch = cells.take(1).map(|cell| cell.trim().trim_matches('`'));
            let fault = switch.filter_map(|text| text.parse::<Fault>().ok());
            sections.entry(section.clone()).or_default().extend(fault);
        }
    }
    sections
}

#[test]
fn every_fault_has_one_row_in_the_section_of_each_of_its_methods() {
    let documented = documented();
    let rows = |section: &str, fault: Fault| {
        let faults = documented.get(section).into_iter().flatten();
        faults.filter(|own| **own == fault).count()
    };
    let mut problems = Vec::new();
    for &fault in Fault::ALL {
        if rows(ALL, fault) == 1 {
            continue;
        }
        if fault.methods().is_empty() {
            problems.push(format!("`{fault}`: no row under {ALL}"));
        }
        for method in fault.methods() {
            let found = rows(method, fault);
            if found != 1 {
                problems.push(format!("`{fault}`: {found} rows under {method}"));
            }
        }
    }
    for (section, faults) in &documented {
        let strange = |fault: &&Fault| section != ALL && !fault.concerns(section);
        for fault in faults.iter().filter(strange) {
            problems.push(format!("`{fault}` under {section}, which does not have it"));
        }
    }
    assert!(
        problems.is_empty(),
        "docs/reference/methods.md:\n{}",
        problems.join("\n")
    );
}
