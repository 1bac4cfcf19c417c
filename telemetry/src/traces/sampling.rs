//! Which attempts are traced: decided by the id of the trace alone, so that all programs decide the same.

use opentelemetry::trace::TraceId;

/// The share of attempts that `OTEL_TRACES_SAMPLER` asks for, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sampling(f64);

impl Sampling {
    /// Reads the standard variables. No attempt has a parent, so the samplers that ask it are as those
    /// that do not. `None` for one that is not known.
    pub(super) fn read(sampler: Option<&str>, argument: Option<&str>) -> Option<Self> {
        let ratio = match sampler.map(|name| name.strip_prefix("parentbased_").unwrap_or(name)) {
            None | Some("always_on") => 1.0,
            Some("always_off") => 0.0,
            Some("traceidratio") => argument.map_or(Some(1.0), |text| text.trim().parse().ok())?,
            Some(_) => return None,
        };
        (0.0..=1.0).contains(&ratio).then_some(Self(ratio))
    }

    /// Goes by the last 56 bits, as the standard has it for random ids: in the half of a UUID that the
    /// SDK's own sampler looks at, the first bits are the same in all.
    pub(super) fn takes(self, trace: TraceId) -> bool {
        let bits = u128::from_be_bytes(trace.to_bytes()) & ((1 << 56) - 1);
        (bits as f64) < self.0 * (1_u64 << 56) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(sampler: Option<&str>, argument: Option<&str>) -> Option<usize> {
        let sampling = Sampling::read(sampler, argument)?;
        let ids = (1..=1000).map(|_| TraceId::from_bytes(uuid::Uuid::new_v4().into_bytes()));
        Some(ids.filter(|&id| sampling.takes(id)).count())
    }

    #[test]
    fn standard_samplers_take_their_share_of_attempts() {
        assert_eq!(taken(None, None), Some(1000));
        assert_eq!(taken(Some("parentbased_always_off"), None), Some(0));
        for (ratio, range) in [("0.25", 180..320), ("0.75", 680..820)] {
            let share = taken(Some("parentbased_traceidratio"), Some(ratio));
            assert!(
                share.is_some_and(|n| range.contains(&n)),
                "{share:?} of {ratio}"
            );
        }
        for ratio in ["2", "-0.1", "NaN", "half"] {
            assert_eq!(taken(Some("traceidratio"), Some(ratio)), None);
        }
        assert_eq!(taken(Some("xray"), None), None);
    }
}
