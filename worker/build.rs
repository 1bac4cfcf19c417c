//! Lets the binary find libtorch where it was built, without LD_LIBRARY_PATH, and adds the revision to
//! the version.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=HALFHEARD_RPATH");
    // Empty for programs that others get: they are told where libtorch is when they start.
    let rpath = std::env::var("HALFHEARD_RPATH").ok().or_else(|| {
        let libtorch = std::env::var("LIBTORCH").ok()?;
        Some(format!("{libtorch}/lib"))
    });
    if let Some(rpath) = rpath.filter(|rpath| !rpath.is_empty()) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{rpath}");
    }
    println!("cargo:rerun-if-env-changed=HALFHEARD_REVISION");
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    // Not tracked per commit: that would relink the worker each time.
    let revision = std::env::var("HALFHEARD_REVISION").ok().or_else(|| {
        let output = Command::new("git")
            .args(["rev-parse", "--short=12", "HEAD"])
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        (output.status.success()).then(|| text.trim().to_owned())
    });
    let version = match revision {
        Some(revision) if !revision.is_empty() => format!("{version}+{revision}"),
        _ => version,
    };
    println!("cargo:rustc-env=HALFHEARD_VERSION={version}");
}
