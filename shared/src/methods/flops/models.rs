//! Each method's forward pass, of one sample: the counterpart of the worker's `methods`.

use super::{
    super::{faults::Fault, memory::Sizes},
    Forward,
    blocks::{Tokens, attention, crossed, head, linear, recurrent},
};

/// Gates of an LSTM and of a GRU.
const LSTM: f64 = 4.0;
const GRU: f64 = 3.0;

/// Samples that the worker predicts at once, on which a method depends whose layers take samples for steps.
const PREDICTED_AT_ONCE: f64 = 128.0;

/// The forward pass of the set-up's method; nothing for a method without one here.
pub(super) fn forward(s: &Sizes<'_>) -> Option<Forward> {
    Some(match s.fit.method_id() {
        "misa" => misa(s),
        "self-mm" => self_mm(s),
        "mmim" => mmim(s),
        "cenet" => cenet(s),
        "tetfn" => tetfn(s),
        "tfr-net" => tfr_net(s),
        "almt" => almt(s),
        "lnln" => lnln(s),
        "lf-dnn" => lf_dnn(s),
        "text-only" => Forward::same(s.packed_text() + linear(1.0, s.width(), 1.0)),
        "emt-dlfr" => emt_dlfr(s),
        _ => return None,
    })
}

fn keeps(s: &Sizes<'_>, fault: Fault) -> bool {
    s.fit.setup().faults.keeps(fault)
}

fn misa(s: &Sizes<'_>) -> Forward {
    let (h, feed) = (s.hyper("hidden_size"), s.hyper("transformer_feedforward"));
    let read = |steps: f64| match keeps(s, Fault::MisaTextLengths) {
        true => steps.min(s.tokens),
        false => steps,
    };
    let stacked = |steps: f64, dim: f64| {
        recurrent(LSTM, steps, dim, dim, 2.0)
            + recurrent(LSTM, steps, 2.0 * dim, dim, 2.0)
            + linear(1.0, 4.0 * dim, h)
    };
    // Private, shared and rebuilt parts of three vectors, and the products that compare six of them.
    let parts = 9.0 * linear(1.0, h, h) + 6.0 * linear(1.0, h, h);
    let six = 4.0 * linear(6.0, h, h) + attention(6.0, 6.0, h) + 2.0 * linear(6.0, h, feed);
    Forward::same(
        s.packed_text()
            + stacked(read(s.vision), s.vision_dim)
            + stacked(read(s.audio), s.audio_dim)
            + linear(1.0, s.width(), h)
            + parts
            + six
            + linear(1.0, 6.0 * h, 3.0 * h)
            + linear(1.0, 3.0 * h, 1.0),
    )
}

/// Recurrent networks over audio and vision, one direction, with a linear layer each over `rows`.
fn two_recurrent(s: &Sizes<'_>, outputs: [&str; 2], rows: [f64; 2]) -> f64 {
    let [audio, vision] = ["a_lstm_hidden_size", "v_lstm_hidden_size"].map(|key| s.hyper(key));
    recurrent(LSTM, s.audio, s.audio_dim, audio, 1.0)
        + recurrent(LSTM, s.vision, s.vision_dim, vision, 1.0)
        + linear(rows[0], audio, s.hyper(outputs[0]))
        + linear(rows[1], vision, s.hyper(outputs[1]))
}

fn self_mm(s: &Sizes<'_>) -> Forward {
    let (audio, vision) = (s.hyper("audio_out"), s.hyper("video_out"));
    Forward::same(
        s.packed_text()
            + two_recurrent(s, ["audio_out", "video_out"], [1.0, 1.0])
            + head(s.width() + audio + vision, s.hyper("post_fusion_dim"))
            + head(s.width(), s.hyper("post_text_dim"))
            + head(audio, s.hyper("post_audio_dim"))
            + head(vision, s.hyper("post_video_dim")),
    )
}

fn mmim(s: &Sizes<'_>) -> Forward {
    let directions = 1.0 + s.on("bidirectional");
    let stack = |steps: f64, dim: f64, hidden: f64, out: f64| {
        let further = (s.hyper("n_layer") - 1.0).max(0.0);
        recurrent(LSTM, steps, dim, hidden, directions)
            + further * recurrent(LSTM, steps, directions * hidden, hidden, directions)
            + linear(1.0, directions * hidden, out)
    };
    let (audio, vision) = (s.hyper("d_aout"), s.hyper("d_vout"));
    let (text, fused) = (s.width(), s.hyper("d_prjh"));
    let predicted = s.packed_text()
        + stack(s.audio, s.audio_dim, s.hyper("d_ah"), audio)
        + stack(s.vision, s.vision_dim, s.hyper("d_vh"), vision)
        + linear(1.0, text + audio + vision, fused)
        + linear(1.0, fused, fused)
        + linear(1.0, fused, 1.0);
    let bound = |x: f64, y: f64| {
        2.0 * (linear(1.0, x, y) + linear(1.0, y, y)) + linear(1.0, y, (y / 4.0).floor())
    };
    // Each sample is compared with the batch, in all three modalities.
    let contrasts = [text, vision, audio]
        .map(|width| linear(1.0, fused, width) + linear(1.0, width, s.batch))
        .iter()
        .sum::<f64>();
    let compared = s.on("contrast")
        * (bound(text, vision)
            + bound(text, audio)
            + s.on("add_va") * bound(vision, audio)
            + contrasts);
    Forward {
        trained: predicted + compared,
        evaluated: predicted,
        ..Forward::default()
    }
}

fn cenet(s: &Sizes<'_>) -> Forward {
    let width = s.width();
    // Each token asks each frame; what makes queries, keys and values of them, and the second map of frames, is applied
    // to the tokens.
    let attend = |steps: f64, dim: f64| {
        linear(steps, dim, width)
            + 5.0 * linear(s.text, width, width)
            + attention(s.text, steps, width)
    };
    Forward::same(
        s.packed_text()
            + attend(s.audio, s.audio_dim)
            + attend(s.vision, s.vision_dim)
            + linear(s.text, 2.0 * width, width)
            + linear(1.0, width, width)
            + linear(1.0, width, 1.0),
    )
}

fn tetfn(s: &Sizes<'_>) -> Forward {
    let (t, f) = (s.text, s.hyper("dst_feature_dims"));
    let convolved = |from: f64, kernel: &str| linear(t, from * s.hyper(kernel), f);
    let vision_kernel = match keeps(s, Fault::TetfnAudioKernel) {
        true => "conv1d_kernel_size_a",
        false => "conv1d_kernel_size_v",
    };
    let (audio, vision) = (s.hyper("a_lstm_hidden_size"), s.hyper("v_lstm_hidden_size"));
    let heads = [
        (6.0 * f, "post_fusion_dim"),
        (f, "post_text_dim"),
        (f, "post_audio_dim"),
        (f, "post_video_dim"),
    ];
    Forward::same(
        s.padded_text()
            + convolved(s.width(), "conv1d_kernel_size_l")
            // Audio and vision are averaged to the text's length first.
            + recurrent(LSTM, t, s.audio_dim, audio, 1.0)
            + recurrent(LSTM, t, s.vision_dim, vision, 1.0)
            + convolved(audio, "conv1d_kernel_size_a")
            + convolved(vision, vision_kernel)
            // Four of two layers, two of three, and three memories of two layers and twice the width, of which the
            // last one computes the last step.
            + 14.0 * crossed(t, t, f)
            + 3.0 * (crossed(t, t, 2.0 * f) + crossed(1.0, t, 2.0 * f))
            + heads.map(|(input, key)| head(input, s.hyper(key))).iter().sum::<f64>(),
    )
}

fn tfr_net(s: &Sizes<'_>) -> Forward {
    let (f, layers) = (s.hyper("dst_feature_dims"), s.hyper("nlevels"));
    let own = layers.max(3.0);
    let steps = [s.text, s.audio, s.vision];
    let dims = [s.width(), s.audio_dim, s.vision_dim];
    let kernels = [
        "conv1d_kernel_size_l",
        "conv1d_kernel_size_a",
        "conv1d_kernel_size_v",
    ]
    .map(|key| s.hyper(key));
    let hidden = ["fusion_t_hid", "fusion_a_hid", "fusion_v_hid"].map(|key| s.hyper(key));
    // Steps are the width; features ask features or, as in the reference, samples ask samples.
    let last = |t: f64, batch: f64| match keeps(s, Fault::TfrSamplesAsSteps) {
        true => 3.0 * f * crossed(batch, batch, t) / batch.max(1.0),
        false => crossed(3.0 * f, 3.0 * f, t),
    };
    let (mut common, mut generated) = (0.0, 0.0);
    let (mut trained, mut evaluated) = (0.0, 0.0);
    for i in 0..3 {
        let (t, h) = (steps[i], hidden[i]);
        if dims[i] != f {
            common += linear(t, dims[i] * kernels[i], f);
        }
        common += own * crossed(t, t, f);
        for j in (0..3).filter(|&j| j != i) {
            common += layers * crossed(t, steps[j], f);
        }
        let further = (s.hyper("fusion_gru_layers") - 1.0).max(0.0);
        common += recurrent(GRU, t, 3.0 * f, h, 2.0)
            + further * recurrent(GRU, t, 2.0 * h, h, 2.0)
            + linear(t, 3.0 * 2.0 * h, 1.0)
            + linear(t, 2.0 * h + 3.0 * f, h);
        trained += own * last(t, s.batch);
        evaluated += own * last(t, PREDICTED_AT_ONCE);
        generated += linear(t, 3.0 * f, dims[i]);
    }
    let total = hidden.iter().sum();
    common += linear(1.0, total, s.hyper("cls_hidden_dim"));
    common += linear(1.0, s.hyper("cls_hidden_dim"), 1.0);
    Forward {
        // Erased and complete texts.
        trained: 2.0 * s.padded_text() + common + generated + trained,
        evaluated: s.padded_text() + common + evaluated,
        ..Forward::default()
    }
}

fn almt(s: &Sizes<'_>) -> Forward {
    let (width, tokens) = (s.hyper("width"), s.hyper("tokens"));
    let read = |steps: f64| match s.hyper("frames") {
        0.0 => steps,
        frames => steps.min(frames),
    };
    let inputs = [
        (s.text, s.width()),
        (read(s.audio), s.audio_dim),
        (read(s.vision), s.vision_dim),
    ];
    let embedded = inputs.iter().enumerate().map(|(i, (steps, dim))| {
        let shape = Tokens {
            width,
            depth: s.listed("embedding_depth", i),
            heads: s.listed("embedding_heads", i),
            hidden: s.hyper("embedding_hidden"),
        };
        shape.condense(*steps, *dim, tokens)
    });
    let depth = s.hyper("hyper_depth");
    let language = Tokens {
        width,
        depth: (depth - 1.0).max(0.0),
        heads: s.hyper("language_heads"),
        hidden: width,
    };
    let fusion = Tokens {
        width,
        depth: s.hyper("fusion_depth"),
        heads: s.hyper("fusion_heads"),
        hidden: s.hyper("fusion_hidden"),
    };
    Forward::same(
        s.padded_text()
            + embedded.sum::<f64>()
            + language.transformer(tokens, tokens)
            + Tokens { depth, ..language }.hyper_modality(tokens)
            + fusion.transformer(tokens + 1.0, tokens + 1.0)
            + linear(1.0, width, 1.0),
    )
}

fn lnln(s: &Sizes<'_>) -> Forward {
    let (w, t, heads) = (s.hyper("width"), s.hyper("tokens"), s.hyper("heads"));
    let deep = |key: &str| Tokens {
        width: w,
        depth: s.hyper(key),
        heads,
        hidden: w,
    };
    let number = |key: &str| {
        s.fit
            .setup()
            .hyper
            .get(key)
            .and_then(|value| value.as_f64())
    };
    let counts = |key: &str| number(key).is_some_and(|weight| weight != 0.0);
    let embed = deep("embedding_depth");
    let language = s.on("language") * (s.padded_text() + embed.condense(s.text, s.width(), t));
    let frames = s.on("audio") * embed.condense(s.audio, s.audio_dim, t)
        + s.on("vision") * embed.condense(s.vision, s.vision_dim, t);
    let checked = deep("completeness_depth").transformer(t + 1.0, 1.0)
        + linear(1.0, w, (w / 2.0).floor())
        + linear(1.0, (w / 2.0).floor(), 1.0);
    let corrected = s.on("language") * checked + deep("proxy_depth").transformer(4.0 * t, t);
    let fusion = deep("fusion_depth");
    let learned = match s.fit.on("dmml") {
        true => {
            deep("language_depth").transformer(t, t)
                + deep("hyper_depth").hyper_modality(t)
                + fusion.transformer(t + 1.0, t + 1.0)
                + linear(1.0, w, 1.0)
        }
        false => linear(1.0, 3.0 * w, 1.0),
    };
    let behind = s.on("dmc") * corrected + learned;

    // Complete inputs go with erased ones where their features are compared.
    let adversarial = s.fit.on("dmc") && s.fit.on("language") && counts("beta");
    let rebuilds = s.fit.on("reconstructor") && counts("gamma");
    let features = rebuilds && keeps(s, Fault::RebuiltFeatures);
    let judged = adversarial && keeps(s, Fault::MixedDiscriminator);
    let twice = |compared: bool| if compared { 2.0 } else { 1.0 };
    let hidden = s.hyper("discriminator_hidden");
    let discriminated = match adversarial {
        true => linear(2.0 * t, w, hidden) + linear(2.0 * t, hidden, 2.0),
        false => 0.0,
    };
    let inputs = [
        ("language", s.text, s.width()),
        ("audio", s.audio, s.audio_dim),
        ("vision", s.vision, s.vision_dim),
    ];
    let rebuild = |(modality, steps, dim): (&str, f64, f64)| {
        let shape = deep("reconstructor_depth");
        s.on(modality)
            * match features {
                true => shape.transformer(t, t),
                // A token for each step asks the feature.
                false => shape.transformer(t + steps, steps) + linear(steps, w, dim),
            }
    };
    let rebuilt = match rebuilds {
        true => inputs.map(rebuild).iter().sum(),
        false => 0.0,
    };
    let mut forward = Forward {
        trained: twice(features || judged) * language
            + twice(features) * frames
            + behind
            + discriminated
            + rebuilt,
        frozen: 0.0,
        evaluated: language + frames + behind,
    };
    // Inputs are rebuilt in the encoder's terms: the complete text goes through it once more.
    if rebuilds && !features && s.fit.on("language") {
        match keeps(s, Fault::TrainedTarget) {
            true => forward.trained += s.padded_text(),
            false => forward.frozen += s.padded_text(),
        }
    }
    forward
}

fn lf_dnn(s: &Sizes<'_>) -> Forward {
    let (hidden, out) = (s.hyper("text_hidden"), s.hyper("text_out"));
    let (audio, vision) = (s.hyper("audio_hidden"), s.hyper("vision_hidden"));
    let read = match keeps(s, Fault::LfPaddedText) {
        true => s.text,
        false => s.tokens,
    };
    let frames =
        |dim: f64, hidden: f64| linear(1.0, dim, hidden) + 2.0 * linear(1.0, hidden, hidden);
    let trained = recurrent(LSTM, read, s.width(), hidden, 1.0)
        + linear(1.0, hidden, out)
        + frames(s.audio_dim, audio)
        + frames(s.vision_dim, vision)
        + head(audio + vision + out, s.hyper("post_fusion_dim"));
    Forward {
        trained,
        // Text features are fixed.
        frozen: s.packed_text(),
        evaluated: s.packed_text() + trained,
    }
}

/// One direction of EMT-DLFR's mutual promotion: `steps` ask the `other` side, then themselves.
fn promoted(steps: f64, other: f64, width: f64, expansion: f64) -> f64 {
    let asked = |memory: f64| {
        2.0 * linear(steps, width, width)
            + 2.0 * linear(memory, width, width)
            + attention(steps, memory, width)
    };
    // The feed-forward layer is gated: two halves in, one out.
    asked(other) + asked(steps) + 3.0 * linear(steps, width, expansion * width)
}

fn emt_dlfr(s: &Sizes<'_>) -> Forward {
    let (w, layers) = (s.hyper("d_model"), s.hyper("fusion_layers"));
    let expansion = s.hyper("ff_expansion");
    let vectors = [s.width(), s.hyper("audio_out"), s.hyper("video_out")];
    let context = 3.0 * w;
    let steps = [s.text, s.audio, s.vision];
    let over = |updates: f64| -> f64 {
        let sides = steps.map(|t| {
            updates * promoted(t, 3.0, w, expansion) + layers * promoted(3.0, t, w, expansion)
        });
        let pooled = linear(3.0, context, context) + 2.0 * linear(3.0, context, 1.0);
        sides.iter().sum::<f64>() + layers * pooled
    };
    // The sequence and the vector of each modality.
    let projected: f64 = (0..3)
        .filter(|&i| vectors[i] != w)
        .map(|i| linear(steps[i] + 1.0, vectors[i], w))
        .sum();
    let rows = [s.audio + 1.0, s.vision + 1.0];
    let view = s.packed_text()
        + two_recurrent(s, ["audio_out", "video_out"], rows)
        + projected
        + head(
            vectors.iter().sum::<f64>() + context,
            s.hyper("post_fusion_dim"),
        );
    let predictors = [
        (context, "gmc_tokens_pred_dim"),
        (vectors[0], "text_pred_dim"),
        (vectors[1], "audio_pred_dim"),
        (vectors[2], "video_pred_dim"),
    ];
    let attraction: f64 = predictors
        .map(|(from, key)| linear(1.0, from, from) + 2.0 * linear(1.0, from, s.hyper(key)))
        .iter()
        .sum();
    let dims = [s.width(), s.audio_dim, s.vision_dim];
    let generated: f64 = (0..3).map(|i| linear(steps[i], w, dims[i])).sum();
    // The last layer's sequences are computed for the erased view in training alone.
    let fewer = (layers - 1.0).max(0.0);
    Forward {
        trained: 2.0 * (view + attraction) + over(fewer) + over(layers) + generated,
        frozen: 0.0,
        evaluated: view + over(fewer),
    }
}
