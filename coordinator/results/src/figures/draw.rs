//! Draws any figure.

use super::{
    Figure, FigureError, Inputs, Kind, Needs, Request, confusion, curves, features, labels, ranks,
    select::Content,
};
use halfheard_shared::{benchmark::Benchmark, results::Results};

/// Checks a request, and says what the figure needs.
///
/// # Errors
///
/// A request that does not fit the sweep or the figure.
pub fn needs(results: &Results, kind: Kind, request: &Request) -> Result<Needs, FigureError> {
    check(kind, request)?;
    let content = Content::of(results);
    Ok(match kind {
        Kind::Curves | Kind::Ranks => Needs::Nothing,
        Kind::Labels => Needs::Splits,
        Kind::Confusion(_) | Kind::ConfusionOfOne => {
            let dataset = dataset(&content, kind, request)?;
            Needs::Predictions(confusion::needs(&content, dataset, request)?)
        }
        Kind::Features => Needs::Features(features::needs(results, &content, request)?),
    })
}

/// Draws a figure of a sweep from what it [`needs`].
///
/// # Errors
///
/// A request that does not fit the sweep or the figure; results that are missing.
pub fn draw(
    results: &Results,
    kind: Kind,
    request: &Request,
    inputs: &Inputs,
) -> Result<Figure, FigureError> {
    check(kind, request)?;
    let content = Content::of(results);
    match kind {
        Kind::Curves => curves::figure(results, &content, request),
        Kind::Labels => labels::figure(results, &content, request, inputs),
        Kind::Confusion(_) | Kind::ConfusionOfOne => {
            let dataset = dataset(&content, kind, request)?;
            confusion::figure(&inputs.predictions, &content, dataset, request)
        }
        Kind::Features => features::figure(results, &content, request, inputs),
        Kind::Ranks => ranks::figure(results, &content, request),
    }
}

/// The dataset of a confusion matrix.
fn dataset(content: &Content, kind: Kind, request: &Request) -> Result<Benchmark, FigureError> {
    if let Kind::Confusion(dataset) = kind {
        return Ok(dataset);
    }
    match content.datasets(request)?[..] {
        [dataset] => Ok(dataset),
        _ => Err(FigureError::Several {
            have: content.names(),
        }),
    }
}

/// Rejects options without effect: they are misunderstandings.
fn check(kind: Kind, request: &Request) -> Result<(), FigureError> {
    let useless = |why, option| {
        Err(FigureError::Useless {
            figure: kind.id(),
            why,
            option,
        })
    };
    if kind != Kind::Curves {
        if !request.metrics.is_empty() {
            return useless("has fixed metrics", "--metric");
        }
        if request.published {
            return useless("has no published numbers", "--published");
        }
    }
    match kind {
        Kind::Labels if !request.methods.is_empty() => useless("shows no methods", "--method"),
        Kind::Labels | Kind::Ranks if !request.rates.is_empty() => {
            useless("is not of single rates", "--rates")
        }
        Kind::Confusion(_) if !request.datasets.is_empty() => {
            useless("is of one dataset", "--dataset")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::case::Rate;

    #[test]
    fn option_without_effect_is_refused() {
        let refused = |kind: Kind, request: Request| check(kind, &request).unwrap_err().to_string();
        let rates = Request {
            rates: vec![Rate::new(0.3).unwrap()],
            ..Request::default()
        };
        assert_eq!(
            refused(Kind::Labels, rates.clone()),
            "figure 4 is not of single rates: leave --rates out"
        );
        assert!(check(Kind::Features, &rates).is_ok());
        let published = Request {
            published: true,
            ..Request::default()
        };
        assert!(check(Kind::Curves, &published).is_ok());
        assert!(refused(Kind::Ranks, published).contains("--published"));
        let datasets = Request {
            datasets: vec![Benchmark::Sims],
            ..Request::default()
        };
        assert!(refused(Kind::Confusion(Benchmark::Mosi), datasets).contains("--dataset"));
    }
}
