//! `portlane`: see the library of the same name.

use std::process::ExitCode;

/// The proxy is in this process; its own program has the same.
#[cfg(all(target_os = "linux", target_env = "musl"))]
#[global_allocator]
static POOL: proxy::sys::Pool = proxy::sys::Pool::new();

fn main() -> ExitCode {
    portlane::start()
}
