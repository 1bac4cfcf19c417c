//! The exit codes of `worker`.

/// Told to leave and left in good order, or with `--once` nothing was left to do.
pub const OK: u8 = 0;
/// Wrong flags or settings.
pub const USAGE: u8 = 2;
/// The broker does not let it in.
pub const BROKER: u8 = 3;
/// The device that was asked for cannot be used.
pub const DEVICE: u8 = 4;
/// The artifact store cannot be used.
pub const ARTIFACTS: u8 = 5;
/// Left at once: told twice, or a slot had to be ended.
pub const AT_ONCE: u8 = 6;
/// With `--once`: for all of that time it lacked what its jobs need.
pub const UNFIT: u8 = 7;
/// It cannot be set up: no threads, no processes.
pub const INTERNAL: u8 = 70;
/// The device failed or libtorch's thread died: a fresh process is needed. The supervisor starts one.
pub const BROKEN: u8 = 71;
/// A job asks for other numerics than the process computes with. The supervisor starts one that
/// does.
pub const TURN: u8 = 72;

/// For `--help`.
pub const HELP: &str = "\
Exit codes:
   0  told to leave and left in good order; or --once, and nothing was left to do
   2  wrong flags or settings
   3  the broker does not let it in
   4  the device that was asked for cannot be used
   5  the artifact store cannot be used
   6  left at once: told twice, or a slot had to be ended
   7  --once, and all that time it lacked what jobs need: a store, data, a method, a device
  70  it cannot be set up (threads, processes)
  71  the device failed, a fresh process is needed (a slot's code; the supervisor starts one)
  72  a job asks for other numerics (a slot's code; the supervisor starts the slot anew for it)";
