//! What a sweep shares with others, in words.

use halfheard_shared::text::count;
use halfheard_store::submit::Shared;

/// Says `48 of 1224 jobs are new; 1100 are done already, 76 are under way for sweep demo`, or nothing if
/// all are new.
pub(crate) fn describe(total: i64, fresh: i64, shared: &Shared) -> Option<String> {
    if fresh == total {
        return None;
    }
    let are = |number: i64| if number == 1 { "is" } else { "are" };
    let mut parts = Vec::new();
    if shared.done > 0 {
        parts.push(format!("{} {} done already", shared.done, are(shared.done)));
    }
    if shared.open > 0 {
        let of = match shared.sweeps.as_slice() {
            [] => String::new(),
            [one] => format!(" for sweep {one}"),
            several => format!(" for sweeps {}", several.join(", ")),
        };
        let open = shared.open;
        parts.push(format!("{open} {} under way{of}", are(open)));
    }
    if shared.failed > 0 {
        parts.push(format!(
            "{} failed before (`coord retry` runs them again)",
            shared.failed
        ));
    }
    if shared.cancelled > 0 {
        parts.push(format!(
            "{} continue where they were cancelled",
            shared.cancelled
        ));
    }
    let all = count(usize::try_from(total).unwrap_or_default(), "job");
    let new = match fresh {
        0 => "none".to_owned(),
        some => some.to_string(),
    };
    let mut text = format!("{new} of {all} {} new", are(fresh));
    if !parts.is_empty() {
        text.push_str("; ");
        text.push_str(&parts.join(", "));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_jobs_are_said_by_state() {
        let shared = Shared {
            done: 1100,
            open: 76,
            sweeps: vec!["demo".into()],
            ..Shared::default()
        };
        assert_eq!(
            describe(1224, 48, &shared).unwrap(),
            "48 of 1224 jobs are new; 1100 are done already, 76 are under way for sweep demo"
        );
        let rest = Shared {
            done: 1,
            failed: 2,
            cancelled: 3,
            ..Shared::default()
        };
        assert_eq!(
            describe(6, 0, &rest).unwrap(),
            "none of 6 jobs are new; 1 is done already, 2 failed before (`coord retry` runs them \
             again), 3 continue where they were cancelled"
        );
        assert_eq!(describe(6, 6, &Shared::default()), None);
    }
}
