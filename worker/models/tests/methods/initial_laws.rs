//! The law of every initial weight, by the tensor's name, written down from the references alone:
//! PyTorch's defaults, and what a reference does differently.

use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// The distribution of a tensor's initial values, each drawn independently.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Law {
    Constant(f64),
    /// Uniform between plus and minus this bound.
    Uniform(f64),
    /// Normal around 0 with this deviation.
    Normal(f64),
}

/// The shapes of a model's tensors by name.
pub(crate) type Shapes = BTreeMap<String, Vec<i64>>;

/// The law of `method`'s tensor `name`; `None` if nothing is known of such a name.
pub(crate) fn law(method: &str, name: &str, shapes: &Shapes) -> Option<Law> {
    own(method, name, shapes).or_else(|| pytorch(name, shapes))
}

/// The shape of the `weight` of the module that `name` belongs to.
fn weight<'a>(name: &str, shapes: &'a Shapes) -> Option<&'a [i64]> {
    let (module, _) = name.rsplit_once('.')?;
    shapes.get(&format!("{module}.weight")).map(Vec::as_slice)
}

/// Glorot & Bengio 2010: the bound of the uniform distribution for a matrix `[out, in]`.
fn xavier(rows: i64, columns: i64) -> f64 {
    (6.0 / (rows + columns) as f64).sqrt()
}

/// What a reference initializes itself.
fn own(method: &str, name: &str, shapes: &Shapes) -> Option<Law> {
    let is_bias = name.ends_with(".bias");
    match (method, weight(name, shapes), shapes[name].as_slice()) {
        // MMSA `models/subNets/transformers_encoder`: the encoders of TETFN and TFR-Net.
        ("tetfn" | "tfr-net", Some([rows, columns]), _) if name.contains(".layers.") => {
            Some(if is_bias {
                Law::Constant(0.0)
            } else {
                Law::Uniform(xavier(*rows, *columns))
            })
        }
        // MMSA `trains/singleTask/MMIM.py`: every matrix outside BERT, recurrent ones too.
        ("mmim", _, [rows, columns]) => Some(Law::Normal((2.0 / (rows + columns) as f64).sqrt())),
        // MMSA `models/singleTask/CENET.py`, `_init_weights`: linear layers and embeddings.
        ("cenet", Some([_, _]), _) => Some(if is_bias {
            Law::Constant(0.0)
        } else {
            Law::Normal(0.02)
        }),
        // MMSA `models/singleTask/ALMT.py`, LNLN `models/lnln.py` and `models/basic_layers.py`.
        ("almt" | "lnln", ..) => match name.rsplit('.').next()? {
            "h_hyper" | "h_p" => Some(Law::Constant(1.0)),
            "extra_token" => Some(Law::Constant(0.0)),
            "pos_embedding" | "pos_embedding_s" | "pos_embedding_t" => Some(Law::Normal(1.0)),
            _ => None,
        },
        _ => None,
    }
}

/// PyTorch's defaults.
fn pytorch(name: &str, shapes: &Shapes) -> Option<Law> {
    let (module, kind) = name.rsplit_once('.')?;
    match kind {
        "running_mean" | "num_batches_tracked" => Some(Law::Constant(0.0)),
        "running_var" => Some(Law::Constant(1.0)),
        // `MultiheadAttention`: Xavier over queries, keys and values as one matrix [3 E, E].
        "in_proj_weight" => match shapes[name].as_slice() {
            [rows, columns] => Some(Law::Uniform(xavier(*rows, *columns))),
            _ => None,
        },
        "in_proj_bias" => Some(Law::Constant(0.0)),
        "bias" if module.ends_with("self_attn.out_proj") => Some(Law::Constant(0.0)),
        // Of layer and batch norms, weights are vectors; of linear and convolutional layers, the
        // outputs come first.
        "weight" | "bias" => match weight(name, shapes)? {
            [] => None,
            [_] => Some(Law::Constant(if kind == "weight" { 1.0 } else { 0.0 })),
            [_, inputs @ ..] => {
                let inputs: i64 = inputs.iter().product();
                Some(Law::Uniform((inputs as f64).powf(-0.5)))
            }
        },
        // LSTM and GRU, weights and biases of all gates: the hidden size alone counts.
        _ if ["weight_ih_l", "weight_hh_l", "bias_ih_l", "bias_hh_l"]
            .iter()
            .any(|start| kind.starts_with(start)) =>
        {
            match shapes.get(&format!("{module}.weight_hh_l0"))?.as_slice() {
                [_, hidden] => Some(Law::Uniform((*hidden as f64).powf(-0.5))),
                _ => None,
            }
        }
        _ => None,
    }
}

/// How often chance alone may exceed the bound of an extreme.
const RARE: f64 = 1e-9;

/// The most standard errors by which a mean or a mean square may be off: chance alone, 1 in 10^10.
const ERRORS: f64 = 6.5;

/// Compares the mean, the mean square and the largest absolute value of draws with a law, to which
/// normal `noise` of this deviation was added.
///
/// # Errors
///
/// How the draws differ from it.
pub(crate) fn check(law: Law, draws: &Tensor, noise: f64) -> Result<(), String> {
    let draws = draws.to_kind(Kind::Double);
    let n = draws.numel() as f64;
    let number = |t: Tensor| t.double_value(&[]);
    // The most that normal values reach, in deviations.
    let reach = (2.0 * (n / RARE).ln()).sqrt();
    // Variance, fourth moment, and the range of the largest absolute value.
    let (variance, fourth, largest) = match law {
        Law::Constant(value) => {
            let (min, max) = (number(draws.min()), number(draws.max()));
            return match (min == value && max == value, noise > 0.0) {
                (true, _) => Ok(()),
                (false, true) => check(Law::Normal(noise), &(draws - value), 0.0),
                (false, false) => Err(format!("{min} to {max}, not always {value}")),
            };
        }
        Law::Uniform(bound) => (
            bound.powi(2) / 3.0,
            bound.powi(4) / 5.0,
            // All lie below a share q of the bound with probability q^n; rounded to 32 bits.
            (bound * RARE.powf(1.0 / n), bound * (1.0 + 1e-6)),
        ),
        Law::Normal(deviation) => {
            // 0.9545^450 < 10^-9: unlike a uniform's, some lie beyond two deviations.
            let least = if n >= 450.0 { 2.0 } else { 0.0 };
            (
                deviation.powi(2),
                3.0 * deviation.powi(4),
                (deviation * least, deviation * reach),
            )
        }
    };
    let fourth = fourth + 6.0 * variance * noise.powi(2) + 3.0 * noise.powi(4);
    let variance = variance + noise.powi(2);
    let mean = number(draws.mean(Kind::Double));
    let square = number(draws.square().mean(Kind::Double));
    let most = number(draws.abs().max());
    let errors = |off: f64, variance: f64| off / (variance / n).sqrt();
    let mean_off = errors(mean, variance);
    let square_off = errors(square - variance, fourth - variance.powi(2));
    if mean_off.abs() > ERRORS {
        return Err(format!("mean {mean:.2e}, {mean_off:.1} errors from 0"));
    }
    if square_off.abs() > ERRORS {
        return Err(format!(
            "deviation {:.4}, not {:.4} ({square_off:.1} errors)",
            square.sqrt(),
            variance.sqrt()
        ));
    }
    let (least, greatest) = (largest.0 - reach * noise, largest.1 + reach * noise);
    if most < least || most > greatest {
        return Err(format!(
            "largest value {most:.5}, not {least:.5} to {greatest:.5}"
        ));
    }
    Ok(())
}
