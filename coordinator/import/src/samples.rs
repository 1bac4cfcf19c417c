//! One split of the pickle: small fields decoded and checked, features borrowed.

use crate::{
    ImportError,
    assemble::Samples,
    cube::{Cube, Problem, Scratch},
    fields::Fields,
    nonfinite::{self, NonFinite, Place, Reference, Refused},
};
use halfheard_shared::dataset::{Kind, LengthSource, NotFinite, Split, Treatment, mask_problem};
use std::collections::BTreeMap;

/// How values that are not finite are treated, and by which loader's example.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Policy {
    pub nonfinite: NonFinite,
    pub reference: Reference,
}

impl Policy {
    /// Whether a value that is not finite becomes 0.
    fn zeroes(self, field: &str, value: f32) -> bool {
        match self.nonfinite {
            NonFinite::Reference => self.reference.zeroes(field, value),
            NonFinite::Zero => true,
            NonFinite::Refuse => false,
        }
    }
}

/// The texts of a split: token ids, mask and segments.
struct Texts<'p, 'a> {
    cube: Cube<'p, 'a>,
    /// Whether they are stored as `[N, L, 3]`.
    transposed: bool,
    /// Tokens without padding, per sample.
    lengths: Vec<usize>,
    /// Where each sample's text begins: above 0 if it is padded at the start.
    starts: Vec<usize>,
}

/// The features of audio or vision.
struct Features<'p, 'a> {
    field: &'static str,
    cube: Cube<'p, 'a>,
    lengths: Vec<i64>,
    from: LengthSource,
    /// Whether padding is at the start, and is moved to the end.
    moved: bool,
}

/// One split, ready to be checked and written.
pub(crate) struct SplitSamples<'p, 'a> {
    split: Split,
    text: Texts<'p, 'a>,
    audio: Features<'p, 'a>,
    vision: Features<'p, 'a>,
    labels: Vec<f32>,
    unimodal: Option<[Vec<f32>; 3]>,
    ids: Vec<String>,
    raw_texts: Vec<String>,
    policy: Policy,
}

/// The findings of [`SplitSamples::check`].
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Values that become 0, by field.
    pub zeroed: BTreeMap<String, NotFinite>,
    /// Rejected values.
    pub refused: Vec<Refused>,
}

impl<'p, 'a> SplitSamples<'p, 'a> {
    /// Reads the split and checks its small fields and texts. Corrections are added to `notes`.
    pub(crate) fn of(
        fields: &Fields<'p, 'a>,
        kind: Kind,
        policy: Policy,
        notes: &mut Vec<String>,
    ) -> Result<Self, ImportError> {
        let split = fields.split();
        let text = Texts::of(fields, notes)?;
        let samples = text.lengths.len();
        let features = |field: &'static str| {
            let cube = fields.cube(field)?;
            let [n, _, width] = cube.shape();
            if n != samples {
                return Err(
                    fields.wrong(field, format!("has {n} samples, `text_bert` has {samples}"))
                );
            }
            let own = cube.own_sizes().unwrap_or_default().iter();
            match own.enumerate().find(|(_, (a, b))| *a > 0 && *b != width) {
                None => Ok(cube),
                Some((sample, (_, b))) => Err(fields.wrong(
                    field,
                    format!("has {b} features at sample {sample} and {width} at others"),
                )),
            }
        };
        let (audio, vision) = (features("audio")?, features("vision")?);
        let labels = fields.labels("regression_labels", kind, samples)?;
        let of = |field| fields.labels(field, kind, samples);
        let unimodal = match kind.has_unimodal_labels() {
            true => Some([
                of("regression_labels_T")?,
                of("regression_labels_A")?,
                of("regression_labels_V")?,
            ]),
            false => None,
        };
        // Aligned files have one step of audio and vision per token, and no lengths.
        let steps = [text.width(), audio.shape()[1], vision.shape()[1]];
        let aligned = steps[0] == steps[1]
            && steps[0] == steps[2]
            && ["audio_lengths", "vision_lengths"]
                .iter()
                .all(|field| fields.optional(field).is_none());
        let lengths = |field: &'static str, cube: &Cube<'_, '_>| {
            let steps = cube.shape()[1];
            Ok::<_, ImportError>(
                if let Some(given) = fields.lengths(field, steps, samples)? {
                    (given, LengthSource::Given)
                } else if let Some(own) = cube.own_sizes() {
                    let own = own.iter().map(|(a, _)| *a as i64).collect();
                    (own, LengthSource::Arrays)
                } else if aligned {
                    let own = text.lengths.iter().map(|&n| n as i64).collect();
                    (own, LengthSource::Text)
                } else {
                    (vec![steps as i64; samples], LengthSource::Full)
                },
            )
        };
        let (audio_lengths, audio_from) = lengths("audio_lengths", &audio)?;
        let (vision_lengths, vision_from) = lengths("vision_lengths", &vision)?;
        let audio = Features::new("audio", audio, audio_lengths, audio_from);
        let vision = Features::new("vision", vision, vision_lengths, vision_from);
        note_lengths(split, &audio, &vision, notes);
        let ids = fields.texts("id", samples, notes)?.unwrap_or_else(|| {
            notes.push(format!(
                "{split}: the file has no ids; samples are numbered"
            ));
            (0..samples).map(|i| format!("{split}-{i}")).collect()
        });
        let raw_texts = raw_texts(fields, samples, notes)?;
        Ok(Self {
            split,
            text,
            audio,
            vision,
            labels,
            unimodal,
            ids,
            raw_texts,
            policy,
        })
    }

    /// Text length, audio steps and features, vision steps and features.
    pub(crate) fn sizes(&self) -> [usize; 5] {
        let ([_, ta, da], [_, tv, dv]) = (self.audio.cube.shape(), self.vision.cube.shape());
        [self.text.width(), ta, da, tv, dv]
    }

    /// Pads what is padded anyway to the largest sizes of all splits.
    pub(crate) fn grow(&mut self, [text, ta, _, tv, _]: [usize; 5]) {
        if self.text.transposed {
            self.text.cube.grow(text, 0);
        } else {
            self.text.cube.grow(0, text);
        }
        self.audio.cube.grow(ta, 0);
        self.vision.cube.grow(tv, 0);
    }

    /// Whether any of its fields is padded here, and can grow.
    pub(crate) fn can_grow(&self) -> bool {
        [&self.text.cube, &self.audio.cube, &self.vision.cube]
            .into_iter()
            .any(|cube| cube.can_grow())
    }

    /// Whether any text is padded at its start.
    pub(crate) fn starts_with_padding(&self) -> bool {
        self.text.starts.iter().any(|&start| start > 0)
    }

    /// Moves padding of audio and vision from the start to the end. To be called if any text of any split
    /// is padded at the start.
    pub(crate) fn move_padding(&mut self, notes: &mut Vec<String>) -> Result<(), ImportError> {
        for features in [&mut self.audio, &mut self.vision] {
            features.find_padding(self.split)?;
            if features.moved {
                notes.push(format!(
                    "{}: the padding at the start of {} was moved to the end",
                    self.split, features.field
                ));
            }
        }
        Ok(())
    }

    /// The raw texts.
    pub(crate) fn texts(&self) -> &[String] {
        &self.raw_texts
    }

    /// Checks every feature value; texts are checked on reading.
    pub(crate) fn check(&self, mut progress: impl FnMut(u64)) -> Result<Checked, ImportError> {
        let mut checked = Checked::default();
        let mut scratch = Scratch::default();
        let (mut floats, mut exact) = (Vec::new(), Vec::new());
        for sample in 0..self.labels.len() {
            for features in [&self.audio, &self.vision] {
                let Features { field, cube, .. } = features;
                cube.read_f32(sample, &mut floats, &mut scratch)
                    .map_err(|problem| error(self.split, field, sample, problem))?;
                if floats.iter().all(|x| x.is_finite()) {
                    continue;
                }
                cube.read_f64(sample, &mut exact, &mut scratch)
                    .map_err(|problem| error(self.split, field, sample, problem))?;
                let width = cube.shape()[2];
                for (at, (&x, &value)) in floats.iter().zip(&exact).enumerate() {
                    if x.is_finite() {
                        continue;
                    }
                    let first = Place {
                        sample,
                        step: at / width,
                        feature: at % width,
                        value,
                    };
                    let counts = if self.policy.zeroes(field, x) {
                        checked.zeroed.entry((*field).to_owned()).or_default()
                    } else {
                        let known = checked.refused.iter().position(|r| r.field == *field);
                        let at = known.unwrap_or_else(|| {
                            checked.refused.push(Refused {
                                split: self.split,
                                field,
                                counts: NotFinite::default(),
                                first,
                            });
                            checked.refused.len() - 1
                        });
                        &mut checked.refused[at].counts
                    };
                    nonfinite::count(counts, value);
                }
            }
            progress(sample as u64 + 1);
        }
        Ok(checked)
    }

    /// What was done to the split, for the manifest.
    pub(crate) fn treatment(&self, zeroed: BTreeMap<String, NotFinite>) -> Treatment {
        let mut moved = BTreeMap::new();
        let texts = self.text.starts.iter().filter(|&&start| start > 0).count();
        if texts > 0 {
            moved.insert("text_bert".to_owned(), texts as u64);
        }
        for features in [&self.audio, &self.vision] {
            if features.moved {
                let steps = features.cube.shape()[1] as i64;
                let count = features.lengths.iter().filter(|&&n| n < steps).count();
                moved.insert(features.field.to_owned(), count as u64);
            }
        }
        Treatment {
            audio_lengths: self.audio.from,
            vision_lengths: self.vision.from,
            zeroed,
            moved,
        }
    }
}

/// The raw texts, empty if the file has none.
fn raw_texts(
    fields: &Fields<'_, '_>,
    samples: usize,
    notes: &mut Vec<String>,
) -> Result<Vec<String>, ImportError> {
    let split = fields.split();
    Ok(fields
        .texts("raw_text", samples, notes)?
        .unwrap_or_else(|| {
            notes.push(format!(
                "{split}: the file has no raw_text; texts are empty"
            ));
            vec![String::new(); samples]
        }))
}

/// Notes where the lengths of audio and vision come from, if the file has none.
fn note_lengths(
    split: Split,
    audio: &Features<'_, '_>,
    vision: &Features<'_, '_>,
    notes: &mut Vec<String>,
) {
    match (audio.from, vision.from) {
        (LengthSource::Text, LengthSource::Text) => notes.push(format!(
            "{split}: the file has no lengths, and audio and vision have as many steps as the text: treated as aligned, with the lengths of the text's mask"
        )),
        _ => {
            for features in [audio, vision] {
                let field = features.field;
                match features.from {
                    LengthSource::Full => notes.push(format!(
                        "{split}: the file has no {field}_lengths; every sample is treated as full"
                    )),
                    LengthSource::Arrays => notes.push(format!(
                        "{split}: {field} is a list of arrays of different lengths; they were padded with zeros and give the lengths"
                    )),
                    LengthSource::Given | LengthSource::Text => {}
                }
            }
        }
    }
}

/// The error for a problem with a field or with one of its samples.
fn error(split: Split, field: &str, sample: usize, problem: Problem) -> ImportError {
    match problem {
        Problem::Field(what) => ImportError::Field {
            split,
            field: field.to_owned(),
            what,
        },
        Problem::Sample(what) => ImportError::Value {
            split,
            field: field.to_owned(),
            sample,
            what,
        },
    }
}

impl<'p, 'a> Texts<'p, 'a> {
    fn of(fields: &Fields<'p, 'a>, notes: &mut Vec<String>) -> Result<Self, ImportError> {
        let split = fields.split();
        let cube = fields.cube("text_bert")?;
        let [samples, a, b] = cube.shape();
        let transposed = a != 3 && b == 3;
        let own = cube.own_sizes().unwrap_or_default();
        if (a != 3 && b != 3) || own.iter().any(|&(a, b)| a != 3 && b != 3) {
            return Err(fields.wrong(
                "text_bert",
                format!(
                    "has shape [{samples}, {a}, {b}], expected [N, 3, L]: token ids, mask, segments"
                ),
            ));
        }
        let mut texts = Self {
            cube,
            transposed,
            lengths: Vec::with_capacity(samples),
            starts: Vec::with_capacity(samples),
        };
        let mut scratch = Scratch::default();
        let mut row = Vec::new();
        for sample in 0..samples {
            let wrong = |problem| error(split, "text_bert", sample, problem);
            texts.read(sample, &mut row, &mut scratch).map_err(wrong)?;
            let (length, start) = check_text(&row).map_err(Problem::Sample).map_err(wrong)?;
            texts.lengths.push(length);
            texts.starts.push(start);
        }
        if transposed {
            notes.push(format!(
                "{split}: text_bert is [N, L, 3] and was transposed to [N, 3, L]"
            ));
        }
        let moved = texts.starts.iter().filter(|&&start| start > 0).count();
        if moved > 0 {
            notes.push(format!(
                "{split}: {moved} texts are padded at the start (padding_location=start); their padding was moved to the end"
            ));
        }
        Ok(texts)
    }

    /// L.
    fn width(&self) -> usize {
        let [_, a, b] = self.cube.shape();
        if self.transposed { a } else { b }
    }

    /// Token ids, mask and segments of a sample, `[3, L]`, as in the file.
    fn read(
        &self,
        sample: usize,
        out: &mut Vec<i64>,
        scratch: &mut Scratch,
    ) -> Result<(), Problem> {
        self.cube.read_i64(sample, out, scratch)?;
        if self.transposed {
            let columns: Vec<i64> = (0..3)
                .flat_map(|part| out.iter().skip(part).step_by(3).copied())
                .collect();
            *out = columns;
        }
        Ok(())
    }
}

/// Checks one text, `[3, L]`. Returns the number of its tokens and where they begin, or what is wrong.
fn check_text(row: &[i64]) -> Result<(usize, usize), String> {
    let l = row.len() / 3;
    let (tokens, rest) = row.split_at(l);
    let (mask, segments) = rest.split_at(l);
    if let Some(id) = tokens
        .iter()
        .find(|&&id| !(0..=i64::from(i32::MAX)).contains(&id))
    {
        return Err(format!("token id {id} is out of range"));
    }
    if segments.iter().any(|s| !(0..=1).contains(s)) {
        return Err("a segment is neither 0 nor 1".to_owned());
    }
    let start = mask.iter().take_while(|&&m| m == 0).count();
    // Padding at the start: zeros, then ones to the end.
    if start > 0 && start < l && mask[start..].iter().all(|&m| m == 1) {
        return Ok((l - start, start));
    }
    let narrow: Vec<i32> = mask
        .iter()
        .map(|&m| i32::try_from(m).unwrap_or(-1))
        .collect();
    match mask_problem(&narrow) {
        Some(what) => Err(what),
        None => Ok((mask.iter().filter(|&&m| m == 1).count(), 0)),
    }
}

impl<'p, 'a> Features<'p, 'a> {
    fn new(field: &'static str, cube: Cube<'p, 'a>, lengths: Vec<i64>, from: LengthSource) -> Self {
        Self {
            field,
            cube,
            lengths,
            from,
            moved: false,
        }
    }

    /// Detects padding at the start, as in the texts: in every sample all steps before the last `length`
    /// are zeros, and in some not all after the first `length` are.
    fn find_padding(&mut self, split: Split) -> Result<(), ImportError> {
        let [_, steps, width] = self.cube.shape();
        let mut scratch = Scratch::default();
        let mut row = Vec::new();
        let mut somewhere = false;
        for (sample, &length) in self.lengths.iter().enumerate() {
            let kept = (length as usize).min(steps) * width;
            if kept == steps * width {
                continue;
            }
            self.cube
                .read_f32(sample, &mut row, &mut scratch)
                .map_err(|problem| error(split, self.field, sample, problem))?;
            let zero = |part: &[f32]| part.iter().all(|&x| x == 0.0);
            if !zero(&row[..row.len() - kept]) {
                return Ok(());
            }
            somewhere |= !zero(&row[kept..]);
        }
        self.moved = somewhere;
        Ok(())
    }

    /// Reads a sample's features in their final form.
    fn write(&self, sample: usize, out: &mut Vec<f32>, policy: Policy) {
        // An unreadable row stays empty, and the writer rejects its size. `check` has read all rows
        // before anything is written.
        if self
            .cube
            .read_f32(sample, out, &mut Scratch::default())
            .is_err()
        {
            out.clear();
        }
        for x in out.iter_mut() {
            if !x.is_finite() && policy.zeroes(self.field, *x) {
                *x = 0.0;
            }
        }
        if self.moved
            && let Some(&length) = self.lengths.get(sample)
        {
            let [_, steps, width] = self.cube.shape();
            let kept = (length as usize).min(steps) * width;
            if kept < out.len() {
                let start = out.len() - kept;
                out.copy_within(start.., 0);
                out[kept..].fill(0.0);
            }
        }
    }
}

impl Samples for SplitSamples<'_, '_> {
    fn count(&self) -> usize {
        self.labels.len()
    }

    fn text(&self, sample: usize, out: &mut Vec<i32>) {
        out.clear();
        let mut wide = Vec::new();
        if self
            .text
            .read(sample, &mut wide, &mut Scratch::default())
            .is_err()
        {
            return;
        }
        let l = self.text.width();
        let start = self.text.starts.get(sample).copied().unwrap_or(0);
        for part in wide.chunks_exact(l) {
            // All ids were checked to fit.
            out.extend(
                part[start..]
                    .iter()
                    .filter_map(|&id| i32::try_from(id).ok()),
            );
            out.extend(std::iter::repeat_n(0, start));
        }
    }

    fn audio(&self, sample: usize, out: &mut Vec<f32>) {
        self.audio.write(sample, out, self.policy);
    }

    fn vision(&self, sample: usize, out: &mut Vec<f32>) {
        self.vision.write(sample, out, self.policy);
    }

    fn labels(&self) -> &[f32] {
        &self.labels
    }

    fn unimodal(&self) -> Option<&[Vec<f32>; 3]> {
        self.unimodal.as_ref()
    }

    fn audio_lengths(&self) -> &[i64] {
        &self.audio.lengths
    }

    fn vision_lengths(&self) -> &[i64] {
        &self.vision.lengths
    }

    fn ids(&self) -> &[String] {
        &self.ids
    }

    fn raw_texts(&self) -> &[String] {
        &self.raw_texts
    }
}
