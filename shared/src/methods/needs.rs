//! What each method needs of its hyper-parameters and the dataset together, beyond the ranges of
//! its file. A method that needs nothing has a function that asks nothing, so that adding one asks
//! for it.

use super::{
    faults::Fault,
    fit::{About, Fit, divisors},
};
use crate::features;

pub(super) fn misa(fit: &mut Fit<'_>) {
    let width = fit.whole("hidden_size");
    if !width.is_multiple_of(2) {
        fit.refuse(
            About::Settings,
            &["hidden_size"],
            format!("hidden_size {width} is odd, and its transformer has two heads"),
            format!("set `hidden_size` to an even number, as {}", width + 1),
        );
    }
    fit.one_left_over(
        "the similarity loss compares its means alone (MMSA's weights become NaN there)",
    );
}

/// Labels by modality are guessed from two centers.
const CENTERS: &str = "labels by modality are guessed from a positive and a negative center";

pub(super) fn self_mm(fit: &mut Fit<'_>) {
    fit.two_samples(CENTERS);
}

pub(super) fn mmim(fit: &mut Fit<'_>) {
    // The entropy of samples with positive and with negative labels is the determinant of their
    // covariance, of which no finite logarithm exists where samples are fewer than features.
    let one_layer = fit.whole("n_layer") == 1;
    fit.without_effect(
        one_layer,
        &["dropout_v", "dropout_a"],
        "it acts between layers, and `n_layer` is 1",
    );
    let contrast = fit.on("contrast");
    fit.without_effect(
        !contrast,
        &["alpha", "bound_share", "lr_mmilb", "weight_decay_mmilb"],
        "`contrast` is off",
    );
    let Some((steps, last)) = fit.batches() else {
        return;
    };
    let memory = fit.whole("mem_size");
    let uses_entropy = steps > memory + 1;
    let features = fit.whole("d_vout").max(fit.whole("d_aout")) / 4;
    let needed = 2 * (features + 1);
    let gathered = memory * fit.whole("batch_size") + last;
    if uses_entropy && gathered < needed {
        fit.refuse(
            About::Settings,
            &["mem_size", "batch_size"],
            format!(
                "the entropy of {features} features needs at least {needed} samples, half of each \
                 sign, and the last batch with the {memory} before it has {gathered}"
            ),
            "set a larger `mem_size` or `batch_size`, or smaller `d_vout` and `d_aout`",
        );
    }
}

pub(super) fn cenet(fit: &mut Fit<'_>) {
    // The enhancement comes before the encoder's second layer.
    if let Some(encoder) = fit.setup().encoder
        && encoder.layers < 2
    {
        fit.refuse(
            About::Encoder,
            &[],
            "the text encoder has one layer, and audio and vision come in before the second",
            "take an encoder with two layers or more",
        );
    }
}

pub(super) fn tetfn(fit: &mut Fit<'_>) {
    fit.two_samples(CENTERS);
    fit.heads_divide(&["nheads", "dst_feature_dims"]);
    let reference = fit.setup().faults.keeps(Fault::TetfnAudioKernel);
    fit.without_effect(
        reference,
        &["conv1d_kernel_size_v"],
        "the reference gives the vision the audio's kernel; it counts under \
         `tetfn-audio-kernel = false`",
    );
    let Some(data) = fit.setup().data else {
        return;
    };
    // Audio and vision are averaged to the text's length before their convolutions, and nothing is
    // padded.
    let length = data.shapes.text_len as u64;
    let vision = match fit.setup().faults.keeps(Fault::TetfnAudioKernel) {
        true => None,
        false => Some(&["conv1d_kernel_size_v"]),
    };
    let kernels: [Option<&'static [&'static str; 1]>; 3] = [
        Some(&["conv1d_kernel_size_l"]),
        Some(&["conv1d_kernel_size_a"]),
        vision,
    ];
    for key in kernels.into_iter().flatten() {
        let kernel = fit.whole(key[0]);
        if kernel > length {
            fit.refuse(
                About::Settings,
                key,
                format!(
                    "texts of this dataset have {length} tokens, fewer than the kernel of {} {kernel}",
                    key[0]
                ),
                format!("set `{}` to at most {length}", key[0]),
            );
        }
    }
}

pub(super) fn tfr_net(fit: &mut Fit<'_>) {
    fit.batch_norm();
    fit.heads_divide(&["nheads", "dst_feature_dims"]);
    let kernels: [&'static [&'static str; 1]; 3] = [
        &["conv1d_kernel_size_l"],
        &["conv1d_kernel_size_a"],
        &["conv1d_kernel_size_v"],
    ];
    for key in kernels {
        let kernel = fit.whole(key[0]);
        if kernel.is_multiple_of(2) {
            fit.refuse(
                About::Settings,
                key,
                format!(
                    "{} {kernel} is even, and would shorten the sequence by a step",
                    key[0]
                ),
                format!("set `{}` to an odd number, as {}", key[0], kernel + 1),
            );
        }
    }
    let Some(data) = fit.setup().data else {
        return;
    };
    let shapes = data.shapes;
    let lengths = [
        ("text", shapes.text_len as u64),
        ("audio", shapes.audio_len as u64),
        ("vision", shapes.vision_len as u64),
    ];
    let heads = fit.whole("num_temporal_head").max(1);
    if lengths.iter().all(|(_, length)| length % heads == 0) {
        return;
    }
    let common = lengths.iter().fold(0, |a, (_, b)| common_divisor(a, *b));
    let good: Vec<String> = divisors(common)
        .into_iter()
        .filter(|&d| d <= 128)
        .map(|d| d.to_string())
        .collect();
    let said: Vec<String> = lengths
        .iter()
        .map(|(name, length)| format!("{name} {length}"))
        .collect();
    let set = match good.as_slice() {
        [only] => format!("set `num_temporal_head` to {only}"),
        several => format!("set `num_temporal_head` to one of {}", several.join(", ")),
    };
    fit.refuse(
        About::Settings,
        &["num_temporal_head"],
        format!(
            "num_temporal_head {heads} must divide the lengths of all modalities, and this dataset \
             has {}",
            said.join(", ")
        ),
        set,
    );
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

pub(super) fn almt(fit: &mut Fit<'_>) {
    fit.heads_divide(&["hyper_heads", "width"]);
    let frames = fit.whole("frames");
    let shapes = fit.setup().data.map(|data| data.shapes);
    let longest = shapes.map(|shapes| shapes.audio_len.max(shapes.vision_len) as u64);
    fit.without_effect(
        frames > 0 && longest.is_some_and(|longest| longest <= frames),
        &["frames"],
        "audio and vision of this dataset have no more",
    );
}

pub(super) fn lnln(fit: &mut Fit<'_>) {
    fit.heads_divide(&["heads", "width"]);
    let (dmc, language) = (fit.on("dmc"), fit.on("language"));
    fit.without_effect(
        !dmc,
        &[
            "alpha",
            "beta",
            "proxy_depth",
            "discriminator_hidden",
            "completeness_depth",
        ],
        "`dmc` is off",
    );
    fit.without_effect(
        dmc && !language,
        &[
            "alpha",
            "beta",
            "discriminator_hidden",
            "completeness_depth",
        ],
        "`language` is off",
    );
    let (reconstructor, dmml) = (fit.on("reconstructor"), fit.on("dmml"));
    fit.without_effect(
        !reconstructor,
        &["gamma", "reconstructor_depth"],
        "`reconstructor` is off",
    );
    fit.without_effect(
        !dmml,
        &["language_depth", "hyper_depth", "fusion_depth"],
        "`dmml` is off",
    );
    let (hyper, language) = (fit.whole("hyper_depth"), fit.whole("language_depth"));
    if fit.on("dmml") && hyper > language + 1 {
        fit.refuse(
            About::Settings,
            &["hyper_depth", "language_depth"],
            format!(
                "hyper_depth {hyper} is more than one above language_depth {language}: each layer \
                 is guided by one state of the language encoder"
            ),
            format!(
                "set `language_depth` to at least {}, or `hyper_depth` to at most {}",
                hyper - 1,
                language + 1
            ),
        );
    }
    if !["language", "audio", "vision"]
        .iter()
        .any(|key| fit.on(key))
    {
        fit.refuse(
            About::Settings,
            &["language", "audio", "vision"],
            "no modality is left",
            "leave one of `language`, `audio` and `vision` true",
        );
    }
    let width = fit.whole("width");
    if width > features::MAX_WIDTH as u64 {
        fit.note(format!(
            "features of a width of {width} are not kept for `coord figure 8`: at most {} are",
            features::MAX_WIDTH
        ));
    }
}

pub(super) fn lf_dnn(fit: &mut Fit<'_>) {
    fit.batch_norm();
    let reference = fit.setup().faults.keeps(Fault::LfNoTextDropout);
    fit.without_effect(
        reference,
        &["text_dropout"],
        "the reference has none where the network has one layer; it counts under \
         `lf-no-text-dropout = false`",
    );
}

pub(super) fn text_only(_fit: &mut Fit<'_>) {}

pub(super) fn emt_dlfr(fit: &mut Fit<'_>) {
    fit.batch_norm();
    fit.heads_divide(&["heads", "d_model"]);
    let text = fit.setup().data.map(|data| data.shapes.text_len);
    if text.is_some_and(|length| length < 2) {
        fit.refuse(
            About::Dataset,
            &[],
            "texts of this dataset have one token, which stands for the text, and no words after it",
            "take a dataset with longer texts, or remove the method",
        );
    }
}
