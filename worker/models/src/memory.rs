//! Memory of training processes: resident size, and what a job needed.

use crate::device::cuda;
use tch::Device;

/// Resident memory of this process in bytes; `None` if the kernel does not report it.
pub fn resident_bytes() -> Option<u64> {
    status("VmRSS:")
}

/// Peak resident memory of this process in bytes; `None` if the kernel does not report it.
pub fn peak_bytes() -> Option<u64> {
    status("VmHWM:")
}

/// Resident pages of files, in bytes: programs, libraries and what is mapped. The kernel can take them back.
pub fn file_bytes() -> Option<u64> {
    status("RssFile:")
}

/// A size from the kernel's status of this process, in bytes.
fn status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let size = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = size.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Bytes of a device's memory: a GPU's, or for the CPU the machine's as far as this process may use
/// it. 0 if unknown.
pub fn of_device(device: Device) -> u64 {
    match device {
        Device::Cuda(number) => cuda::memory(number).map_or(0, |(_, total)| total),
        _ => machine().unwrap_or(0),
    }
}

/// The machine's memory, or the control group's limit where it is lower.
fn machine() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    // `max` where there is no limit.
    let limit = limit.and_then(|limit| limit.trim().parse::<u64>().ok());
    Some((kib * 1024).min(limit.unwrap_or(u64::MAX)))
}

/// Measures the most memory that jobs of this process needed.
///
/// A process keeps memory that it once had, libtorch keeps a GPU's: only a job that raises the
/// process's peak shows what it needs.
#[derive(Clone, Copy, Debug)]
pub struct PeakMemory {
    device: Option<Device>,
    /// Used on the GPU by others when this process began.
    others: u64,
}

impl PeakMemory {
    /// For a process that computes on `device`, before its first tensor; `None` if it cannot be
    /// told from what others use.
    pub fn new(device: Option<Device>) -> Self {
        let mut peak = Self { device, others: 0 };
        if matches!(device, Some(Device::Cuda(_))) {
            peak.others = peak.now();
        }
        peak
    }

    /// The most bytes used so far, of the GPU's memory by everybody; 0 if unknown.
    pub fn now(&self) -> u64 {
        match self.device {
            Some(Device::Cuda(number)) => {
                cuda::memory(number).map_or(0, |(free, total)| total.saturating_sub(free))
            }
            Some(_) => peak_bytes().unwrap_or(0),
            None => 0,
        }
    }

    /// What a job needed, in bytes, that began at `before`; 0 if an earlier one needed more.
    pub fn of_job(&self, before: u64) -> u64 {
        match self.now() {
            now if now > before => now.saturating_sub(self.others),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_is_of_job_that_raised_it() {
        let peak = PeakMemory::new(Some(Device::Cpu));
        let before = peak.now();
        // Larger than anything that another test of this process has at a time.
        let large = vec![1_u8; 600 << 20];
        assert_eq!(
            large.iter().step_by(4096).filter(|&&b| b == 1).count(),
            600 << 8
        );
        assert!(peak.of_job(before) >= 600 << 20, "{before}");
        drop(large);
        assert_eq!(peak.of_job(peak.now() + (1 << 30)), 0);
        assert!(of_device(Device::Cpu) > peak.now());
    }
}
