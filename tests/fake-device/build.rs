//! Compiles the C++ part as the shim of libtorch is compiled.

use std::env;

fn main() -> Result<(), String> {
    let told = |what: &str| {
        let name = format!("DEP_HALFHEARD_TORCH_SHIM_{what}");
        env::var(&name).map_err(|_| format!("the shim does not say {name}"))
    };
    println!("cargo:rerun-if-changed=src/device.cpp");
    cc::Build::new()
        .cpp(true)
        .pic(true)
        .std("c++17")
        .debug(false)
        .define("_GLIBCXX_USE_CXX11_ABI", told("ABI")?.as_str())
        .define("NDEBUG", None)
        .flag("-isystem")
        .flag(told("INCLUDE")?)
        .file("src/device.cpp")
        .compile("halfheard_fake_device");
    Ok(())
}
