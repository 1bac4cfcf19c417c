//! Predictions in the order of the test split.

use super::{Prediction, PredictionsError};
use halfheard_shared::case::Case;
use std::collections::{BTreeMap, HashMap};

/// Brings predictions into the order of a test split of `samples` samples, by case. `ids` are the
/// samples' ids in order, if they are known. Each case must have each sample once.
///
/// # Errors
///
/// A sample that is unknown, missing or there twice.
pub fn arrange(
    rows: &[Prediction],
    ids: Option<&[&str]>,
    samples: usize,
) -> Result<BTreeMap<Case, Vec<f32>>, PredictionsError> {
    let by_id = ids.map(by_id);
    // Ids may be numbers as well: a file with one that is an id has ids.
    let known = |row: &Prediction| {
        by_id
            .as_ref()
            .is_some_and(|ids| ids.contains_key(&*row.sample))
    };
    let has_ids = rows.iter().any(known);
    let mut cases: BTreeMap<Case, Vec<Option<f32>>> = BTreeMap::new();
    for row in rows {
        let unknown = || PredictionsError::Sample {
            case: row.case,
            sample: row.sample.clone(),
        };
        let place = match (&by_id, has_ids, row.sample.parse::<usize>()) {
            (Some(ids), true, _) => ids
                .get(&*row.sample)
                .ok_or_else(unknown)?
                .ok_or_else(|| PredictionsError::Ambiguous(row.sample.clone()))?,
            (_, _, Ok(place)) if place < samples => place,
            (None, _, Err(_)) => {
                let sample = row.sample.clone();
                return Err(PredictionsError::Ids { sample });
            }
            _ => return Err(unknown()),
        };
        let values = cases.entry(row.case).or_insert_with(|| vec![None; samples]);
        if values[place].replace(row.value).is_some() {
            return Err(PredictionsError::Twice {
                case: row.case,
                sample: row.sample.clone(),
            });
        }
    }
    cases
        .into_iter()
        .map(|(case, values)| {
            let missing = values.iter().filter(|value| value.is_none()).count();
            if let Some(first) = values.iter().position(Option::is_none) {
                let named = ids.filter(|_| has_ids).map(|ids| ids[first].to_owned());
                return Err(PredictionsError::Missing {
                    case,
                    missing,
                    samples,
                    first: named.unwrap_or_else(|| first.to_string()),
                });
            }
            Ok((case, values.into_iter().flatten().collect()))
        })
        .collect()
}

/// The place of each id; `None` for one that several samples have.
fn by_id<'a>(ids: &[&'a str]) -> HashMap<&'a str, Option<usize>> {
    let mut places = HashMap::new();
    for (place, id) in ids.iter().enumerate() {
        places
            .entry(*id)
            .and_modify(|known| *known = None)
            .or_insert(Some(place));
    }
    places
}
