//! The finders behind the structural checks find what is planted for them.

use halfheard_structure::{cycles, links};
use std::{fs, path::Path, path::PathBuf};

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
/// A crate in a folder of its own, which the caller's name makes unique.
fn planted(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    for (file, text) in files {
        let file = folder.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    folder.join("lib.rs")
}

fn cycles_of(name: &str, files: &[(&str, &str)]) -> Vec<Vec<String>> {
    cycles::of_crate(&planted(name, files))
        .into_iter()
        .map(|cycle| cycle.modules)
        .collect()
}

#[test]
fn cycle_of_two_top_level_modules_is_found() {
    let found = cycles_of(
        "two",
        &[
            ("lib.rs", "mod cli; mod commands;"),
            (
                "cli.rs",
                "use crate::commands::run; fn main() { run() } pub fn exit() {}",
            ),
            ("commands.rs", "pub fn run() { crate::cli::exit() }"),
        ],
    );
    assert_eq!(found, [["cli", "commands"]]);
}

#[test]
fn cycle_through_a_re_export_and_a_third_module_is_found() {
    let found = cycles_of(
        "three",
        &[
            ("lib.rs", "mod tables;"),
            ("tables/mod.rs", "mod a; mod b; mod c; pub use a::Cell;"),
            (
                "tables/a.rs",
                "pub struct Cell; use super::b; fn f() { b::f() }",
            ),
            ("tables/b.rs", "pub fn f() { vec![super::c::f()]; }"),
            ("tables/c.rs", "pub fn f() { let _ = super::Cell; }"),
        ],
    );
    assert_eq!(found, [["tables::a", "tables::b", "tables::c"]]);
}

#[test]
fn cycle_through_a_glob_and_a_deeper_file_is_found() {
    let found = cycles_of(
        "glob",
        &[
            ("lib.rs", "mod nn; mod models; pub use nn::*;"),
            ("nn.rs", "mod bert; pub struct Layer;"),
            (
                "nn/bert.rs",
                "use crate::models::{lnln::{self, Lnln}}; fn f(_: Lnln) { lnln::g() }",
            ),
            ("models/mod.rs", "pub mod lnln;"),
            (
                "models/lnln.rs",
                "pub struct Lnln; pub fn g() {} fn h(_: crate::Layer) {}",
            ),
        ],
    );
    assert_eq!(found, [["models", "nn"]]);
}

#[test]
fn imports_in_one_direction_and_in_tests_are_no_cycle() {
    let found = cycles_of(
        "none",
        &[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; use std::b::a; pub struct A(B);"),
            (
                "b.rs",
                "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }",
            ),
        ],
    );
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn links_to_missing_files_and_headings_are_found() {
    let folder = planted(
        "links",
        &[
            (
                "page.md",
                "# One\n[a](other.md#a-b) [b](other.md#no) [c](gone.md) [d](#one) `[e](gone.md)`\n```\n[f](gone.md)\n```\n",
            ),
            ("other.md", "## A, b!\n"),
        ],
    );
    let found = links::broken(&folder.with_file_name("page.md"));
    assert_eq!(
        found,
        ["other.md#no: no such heading", "gone.md: no such file"]
    );
}
