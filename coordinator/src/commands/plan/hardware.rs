//! The hardware that a plan is made for.

use serde::Serialize;
use std::{fmt, str::FromStr};

/// The most devices: more than any cluster has.
const MAX_DEVICES: u32 = 100_000;

/// A device that can be named.
struct Known {
    name: &'static str,
    /// As tables write it.
    title: &'static str,
    /// What the names of such devices contain that workers report, in lower case.
    reported: &'static str,
    /// Float32 operations a second, by its data sheet. Workers multiply in float32: libtorch takes TF32 for
    /// products only where it is told to, and it is not.
    peak: f64,
    /// Bytes a second between the device and its memory, by its data sheet.
    bandwidth: f64,
    /// What training achieves of both: [`ACHIEVED`], unless somebody measured it.
    achieved: f64,
}

/// What training BERT in float32 achieves of a GPU's peak. NVIDIA's DeepLearningExamples (PyTorch, BERT, 19.07)
/// trained BERT-large on one V100, 15.7 TFLOP/s, at 33.4 sequences of 128 tokens a second in batches of 8 and at
/// 40.3 in batches of 32: 0.24 TFLOP each, so 0.51 and 0.62 of the peak. Batches here have 300 to 3,000 tokens,
/// as those of 8 have.
const ACHIEVED: f64 = 0.5;

const KNOWN: [Known; 3] = [
    // NVIDIA H100 data sheet and architecture paper, SXM5: 66.9 TFLOP/s in float32, 494.7 in TF32 without sparsity,
    // 3.35 TB/s.
    Known {
        name: "h100",
        title: "NVIDIA H100",
        reported: "h100",
        peak: 66.9e12,
        bandwidth: 3.35e12,
        achieved: ACHIEVED,
    },
    // NVIDIA A100 data sheet, 80 GB SXM: 19.5 TFLOP/s in float32, 156 in TF32 without sparsity, 2,039 GB/s.
    Known {
        name: "a100",
        title: "NVIDIA A100",
        reported: "a100",
        peak: 19.5e12,
        bandwidth: 2.039e12,
        achieved: ACHIEVED,
    },
    // NVIDIA Ada GPU architecture, appendix A: 82.6 TFLOP/s in float32 and in TF32 without sparsity, 1,008 GB/s.
    Known {
        name: "rtx4090",
        title: "NVIDIA RTX 4090",
        reported: "rtx 4090",
        peak: 82.6e12,
        bandwidth: 1.008e12,
        achieved: ACHIEVED,
    },
];

/// Devices that a plan is made for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Hardware {
    /// As it was asked for.
    name: String,
    #[serde(skip)]
    title: String,
    /// What names of such devices begin with or contain that workers report.
    #[serde(skip)]
    reported: String,
    /// How many.
    pub(super) devices: u32,
    /// Operations a second that training achieves on one.
    pub(super) flops_per_second: f64,
    /// Bytes a second that training achieves; unknown of a CPU.
    pub(super) bytes_per_second: Option<f64>,
}

impl Hardware {
    /// Whether a worker's device is of this kind.
    pub(super) fn is(&self, device: &str) -> bool {
        device.to_lowercase().contains(&self.reported)
    }
}

/// Hardware that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not h100, a100, rtx4090 or cpu:GFLOPS (what float32 products achieve there, in GFLOP/s), with xN behind it \
     for N devices"
)]
pub(super) struct UnknownHardware;

impl FromStr for Hardware {
    type Err = UnknownHardware;

    fn from_str(text: &str) -> Result<Self, UnknownHardware> {
        let lower = text.to_lowercase();
        let known = KNOWN
            .iter()
            .find_map(|known| Some((known, lower.strip_prefix(known.name)?)));
        if let Some((known, rest)) = known {
            return Ok(Self {
                title: known.title.to_owned(),
                reported: known.reported.to_owned(),
                devices: devices(rest)?,
                flops_per_second: known.peak * known.achieved,
                bytes_per_second: Some(known.bandwidth * known.achieved),
                name: lower,
            });
        }
        let cpu = lower.strip_prefix("cpu:").ok_or(UnknownHardware)?;
        let (rate, rest) = cpu.split_at(cpu.find('x').unwrap_or(cpu.len()));
        let rate: f64 = rate.parse().map_err(|_| UnknownHardware)?;
        // From a tenth of a GFLOP/s, which nobody would use, to an EFLOP/s.
        if !(0.1..=1e9).contains(&rate) {
            return Err(UnknownHardware);
        }
        Ok(Self {
            title: format!("CPU of {rate} GFLOP/s"),
            reported: "cpu".to_owned(),
            devices: devices(rest)?,
            flops_per_second: rate * 1e9,
            bytes_per_second: None,
            name: lower,
        })
    }
}

/// The number in `xN`; 1 without it.
fn devices(text: &str) -> Result<u32, UnknownHardware> {
    if text.is_empty() {
        return Ok(1);
    }
    let number = text.strip_prefix('x').ok_or(UnknownHardware)?;
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok().filter(|_| digits);
    number
        .filter(|n| (1..=MAX_DEVICES).contains(n))
        .ok_or(UnknownHardware)
}

impl fmt::Display for Hardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.devices {
            1 => f.write_str(&self.title),
            n => write!(f, "{n} x {}", self.title),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_is_a_device_with_a_number() {
        let parsed = |text: &str| text.parse::<Hardware>().unwrap();
        let h100 = parsed("H100x8");
        assert_eq!((h100.devices, h100.flops_per_second), (8, 33.45e12));
        assert_eq!(h100.to_string(), "8 x NVIDIA H100");
        assert!(h100.is("cuda:0 NVIDIA H100 80GB HBM3") && !h100.is("cpu"));
        // The name itself has an x.
        assert_eq!(parsed("rtx4090").devices, 1);
        assert_eq!(parsed("rtx4090x2").devices, 2);
        assert!(parsed("rtx4090").is("NVIDIA GeForce RTX 4090"));
        let cpu = parsed("cpu:160.5x2");
        assert_eq!((cpu.devices, cpu.flops_per_second), (2, 160.5e9));
        assert_eq!(cpu.bytes_per_second, None);
        assert!(cpu.is("cpu") && !cpu.is("NVIDIA A100"));
    }

    #[test]
    fn other_hardware_is_refused() {
        for text in [
            "",
            "h200",
            "cpu",
            "cpu:",
            "cpu:x2",
            "cpu:nan",
            "cpu:-1",
            "cpu:0",
            "cpu:inf",
            "cpu:1e12",
            "h100x0",
            "h100x",
            "h100x-1",
            "h100x+1",
            "h1008",
            "a100x100001",
            "a100x99999999999",
            "h100x8x8",
            "x8",
        ] {
            assert_eq!(text.parse::<Hardware>(), Err(UnknownHardware), "{text}");
        }
    }
}
