//! Owns the name of this machine, as others see it. Must not know who is told.

/// The host name; `unknown` where the system does not say.
pub fn name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "unknown".to_owned() } else { name.trim().to_owned() }
}
