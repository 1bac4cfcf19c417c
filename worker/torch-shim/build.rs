//! Compiles the C++ files against the libtorch that torch-sys found.

use std::{env, path::PathBuf};

/// The files, without their folder and ending.
const FILES: &[&str] = &["adam", "autocast", "gradient", "instructions", "operators"];

fn main() -> Result<(), String> {
    // torch-sys passes on where the libraries are; headers are beside them, unless it was told otherwise.
    let libraries = env::var("DEP_TCH_LIBTORCH_LIB")
        .map(PathBuf::from)
        .map_err(|_| "torch-sys does not say where libtorch is".to_owned())?;
    let told = |name: &str| {
        println!("cargo:rerun-if-env-changed={name}");
        env::var(name).ok()
    };
    let root = told("LIBTORCH_INCLUDE").map_or_else(|| libraries.join(".."), PathBuf::from);
    let include = root.join("include").display().to_string();
    let abi = told("LIBTORCH_CXX11_ABI").unwrap_or_else(|| "1".to_owned());
    // For whoever else compiles C++ against it.
    println!("cargo:include={include}");
    println!("cargo:abi={abi}");
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .pic(true)
        .std("c++17")
        // Line tables of libtorch's headers would take most of the time.
        .debug(false)
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        // As libtorch was compiled: some of its types have more fields without it.
        .define("NDEBUG", None)
        // As system headers, whose warnings are not ours.
        .flag("-isystem")
        .flag(include);
    for name in FILES {
        let file = format!("src/{name}.cpp");
        println!("cargo:rerun-if-changed={file}");
        build.file(file);
    }
    build.compile("halfheard_torch_shim");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", libraries.display());
    Ok(())
}
