//! The states of a Slurm job, and what to do about those in which it ended badly.

/// What a state means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In the queue.
    Waiting,
    /// At work.
    Running,
    /// On its way out: it still has its resources.
    Leaving,
    /// Ended as it should, or because somebody wanted it to.
    Ended,
    /// Ended badly.
    Failed,
}

/// Slurm's word for a state, in full: `OUT_OF_MEMORY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlurmState(String);

impl SlurmState {
    /// Of an allocation that Slurm does not know any more.
    pub(crate) const LOST: &str = "LOST";

    /// Reads `COMPLETED`, `CANCELLED by 1000` or `CANCELLED+`; `None` if it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let word: String = text
            .trim()
            .chars()
            .take_while(|c| c.is_ascii_uppercase() || *c == '_')
            .take(40)
            .collect();
        // `sacct` cuts what is longer than its column.
        let word = match word.as_str() {
            "OUT_OF_ME" => "OUT_OF_MEMORY".to_owned(),
            _ => word,
        };
        (!word.is_empty()).then_some(Self(word))
    }

    pub(crate) fn word(&self) -> &str {
        &self.0
    }

    /// What it means. `PREEMPTED` is an end: a preempted job that is queued again is `PENDING`, or for a
    /// moment `REQUEUED`.
    pub(crate) fn kind(&self) -> Kind {
        match self.0.as_str() {
            "PENDING" | "REQUEUED" | "REQUEUE_FED" | "REQUEUE_HOLD" | "SPECIAL_EXIT"
            | "RESV_DEL_HOLD" => Kind::Waiting,
            "RUNNING" | "CONFIGURING" | "RESIZING" | "SUSPENDED" | "STOPPED" | "SIGNALING" => {
                Kind::Running
            }
            "COMPLETING" | "STAGE_OUT" => Kind::Leaving,
            "COMPLETED" | "CANCELLED" | "PREEMPTED" | "TIMEOUT" | "REVOKED" => Kind::Ended,
            // FAILED, NODE_FAIL, BOOT_FAIL, DEADLINE, OUT_OF_MEMORY, and what a later Slurm adds.
            _ => Kind::Failed,
        }
    }

    /// Whether Slurm is not done with it.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.kind(), Kind::Waiting | Kind::Running | Kind::Leaving)
    }

    /// What to do about an end, by its state and the end of the worker's log. Without control groups,
    /// Slurm kills for memory under the state FAILED, and says so in the log.
    pub(crate) fn advice(word: &str, log: &str) -> Option<&'static str> {
        let memory = log.contains("exceeded memory limit") || log.contains("oom_kill");
        match word {
            _ if memory || word == "OUT_OF_MEMORY" => Some(
                "the allocation's memory was too small: raise --mem (`coord plan` shows what jobs need)",
            ),
            "NODE_FAIL" | "BOOT_FAIL" => {
                Some("a node failed: `sinfo -R` says why; jobs resume in another allocation")
            }
            "DEADLINE" => Some("it could not begin before its deadline: shorten --time"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_in_every_form_that_slurm_prints() {
        for (text, word, kind) in [
            ("PENDING", "PENDING", Kind::Waiting),
            ("REQUEUED", "REQUEUED", Kind::Waiting),
            ("RUNNING", "RUNNING", Kind::Running),
            ("COMPLETING", "COMPLETING", Kind::Leaving),
            ("CANCELLED by 1000", "CANCELLED", Kind::Ended),
            ("CANCELLED+", "CANCELLED", Kind::Ended),
            ("PREEMPTED", "PREEMPTED", Kind::Ended),
            ("TIMEOUT", "TIMEOUT", Kind::Ended),
            ("OUT_OF_ME+", "OUT_OF_MEMORY", Kind::Failed),
            ("NODE_FAIL", "NODE_FAIL", Kind::Failed),
            ("INVENTED_LATER", "INVENTED_LATER", Kind::Failed),
        ] {
            let state = SlurmState::parse(text).unwrap();
            assert_eq!((state.word(), state.kind()), (word, kind));
        }
        assert_eq!(SlurmState::parse(" \u{1b}[31m"), None);
        let advice = |word, log| SlurmState::advice(word, log).unwrap_or_default();
        assert!(advice("OUT_OF_MEMORY", "").contains("--mem"));
        let log =
            "slurmstepd-node1: error: StepId=10.batch exceeded memory limit (331538432 > 52428800)";
        assert!(advice("FAILED", log).contains("--mem"));
        assert_eq!(advice("FAILED", "error: no broker"), "");
    }
}
