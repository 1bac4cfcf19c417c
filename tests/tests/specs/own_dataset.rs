//! Custom datasets from their pickles to every output: Chinese texts without unimodal labels, and
//! star ratings from 0 to 5, imported, planned and run through two methods.

use anyhow::{Context as _, Result, ensure};
use halfheard_e2e::{
    programs::{output, program},
    tiny::Tiny,
};
use std::process::{Command, Stdio};

#[path = "../../../coordinator/import/tests/files/pickler/mod.rs"]
#[expect(clippy::unwrap_used, reason = "a test helper")]
mod pickler;
use pickler::Py;

/// Text length, audio steps and features, vision steps and features.
const SIZES: [i64; 5] = [12, 6, 4, 5, 3];

/// A split whose audio and words encode the label, a number between -1 and 1 that `label` maps to
/// the dataset's range.
fn split(samples: i64, label: fn(f32) -> f32) -> Py {
    let [length, audio_steps, audio_width, vision_steps, vision_width] = SIZES;
    let mood = |i: i64| ((i * 7) % 21 - 10) as f32 / 10.0;
    let moods: Vec<f32> = (0..samples).map(mood).collect();
    let mut text = Vec::new();
    for (i, mood) in moods.iter().enumerate() {
        let words = 4 + i as i64 % 5;
        let word = |at: i64| match at {
            0 => 101,
            at if at == words + 1 => 102,
            at if at > words + 1 => 0,
            at => 120 + (mood * 10.0) as i64 + 30 * (at % 2),
        };
        text.extend((0..length).map(word));
        text.extend((0..length).map(|at| i64::from(at <= words + 1)));
        text.extend(vec![0; length as usize]);
    }
    let features = |steps: i64, width: i64| -> Vec<f32> {
        let each = moods.iter().enumerate();
        each.flat_map(|(i, mood)| {
            (0..steps * width).map(move |at| mood * 0.5 + ((i as i64 + at) % 7) as f32 * 0.05)
        })
        .collect()
    };
    let labels: Vec<f32> = moods.iter().map(|mood| label(*mood)).collect();
    let fields = [
        ("text_bert", Py::ints(&[samples, 3, length], &text)),
        (
            "audio",
            Py::floats(
                &[samples, audio_steps, audio_width],
                &features(audio_steps, audio_width),
            ),
        ),
        (
            "vision",
            Py::floats(
                &[samples, vision_steps, vision_width],
                &features(vision_steps, vision_width),
            ),
        ),
        ("regression_labels", Py::floats(&[samples], &labels)),
        (
            "audio_lengths",
            Py::ints(&[samples], &vec![audio_steps; samples as usize]),
        ),
        (
            "vision_lengths",
            Py::ints(&[samples], &vec![vision_steps; samples as usize]),
        ),
    ];
    Py::Dict(fields.map(|(name, value)| (name.to_owned(), value)).into())
}

fn pickle(label: fn(f32) -> f32) -> Vec<u8> {
    let splits = [("train", 40), ("valid", 16), ("test", 24)];
    Py::Dict(
        splits
            .map(|(name, n)| (name.to_owned(), split(n, label)))
            .into(),
    )
    .pickle()
}

struct Place(tempfile::TempDir);

const DATASETS: &str = r#"
[datasets.mine]
file = "dataset:mine"
benchmark = { label_range = [-1.0, 1.0], language = "zh", classes = [2, 3, 5], unimodal = false }
[datasets.stars]
file = "dataset:stars-file"
benchmark = { label_range = [0, 5], language = "en", classes = [2, 6] }
"#;

fn spec(datasets: &str) -> String {
    format!(
        r#"
        name = "own"
        methods = ["lnln", "self-mm"]
        seeds = [1]
        rates = [0.0, 0.5]
        epochs = 2
        {datasets}
        [encoders.zh]
        path = "tiny-encoder"
        [encoders.en]
        path = "tiny-encoder"
        [hyper.lnln]
        batch_size = 8
        width = 16
        tokens = 4
        heads = 4
        [hyper.self-mm]
        batch_size = 8
        "#
    )
}

impl Place {
    fn new() -> Result<Self> {
        let folder = Tiny::folder(16)?;
        std::fs::write(folder.path().join("mine.pkl"), pickle(|mood| mood))?;
        std::fs::write(
            folder.path().join("stars.pkl"),
            pickle(|mood| 2.5 + 2.5 * mood),
        )?;
        Ok(Self(folder))
    }

    fn coord(&self, line: &str) -> Result<Command> {
        let mut command = Command::new(program("coord")?);
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy().into_owned();
            if name.starts_with("HALFHEARD_") && name != "HALFHEARD_DEPS" {
                command.env_remove(variable);
            }
        }
        command
            .args(line.split(' '))
            .arg("--data-dir")
            .arg(self.0.path().join("data"))
            .current_dir(self.0.path())
            .env("HALFHEARD_CONFIG", "/dev/null")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        Ok(command)
    }

    fn says(&self, line: &str) -> Result<String> {
        output(&mut self.coord(line)?).with_context(|| format!("coord {line}"))
    }

    /// The error of a command that must fail, on one line.
    fn refuses(&self, line: &str) -> Result<String> {
        let ended = self.coord(line)?.output()?;
        ensure!(!ended.status.success(), "coord {line} succeeded");
        let said = String::from_utf8(ended.stderr)?;
        Ok(said.replace("\n  │ ", " "))
    }
}

fn holds(text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "no `{part}` in\n{text}");
    }
    Ok(())
}

#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
#[test]
fn custom_datasets_reach_every_output() -> Result<()> {
    let place = Place::new()?;
    const MINE: &str = "--label-range -1..1 --language zh --classes 2,3,5";

    // Labels outside the range are rejected; nothing is imported.
    let said = place.refuses(&format!("data import stars.pkl --name mine {MINE}"))?;
    holds(
        &said,
        &[
            "`regression_labels`",
            "outside [-1, 1]",
            "labels -1 to 1, zh",
        ],
    )?;
    let said = place.says(&format!("data import mine.pkl --name mine {MINE}"))?;
    holds(
        &said,
        &[
            "labels -1 to 1, zh, classes [2, 3, 5] intervals",
            "weakly negative",
            "in a spec: benchmark = { label_range = [-1.0, 1.0], language = \"zh\"",
        ],
    )?;
    let stars = "label_range = [0, 5]\nlanguage = \"en\"\nclasses = [2, 6]\n";
    std::fs::write(place.0.path().join("stars.toml"), stars)?;
    place.says("data import stars.pkl --name stars-file --protocol stars.toml")?;
    place.says("data check stars-file")?;

    // A mismatch is rejected before anything is queued.
    let spec_file = place.0.path().join("own.toml");
    let wrong = DATASETS
        .replace("[-1.0, 1.0]", "[-2.0, 2.0]")
        .replace("[2, 6]", "[2, 4]");
    std::fs::write(&spec_file, spec(&wrong))?;
    let said = place.refuses("plan own.toml")?;
    holds(
        &said,
        &[
            "`mine` was imported with another definition",
            "label_range [-2, 2], not [-1, 1]",
            "classes [2, 4], not [2, 6]",
        ],
    )?;
    std::fs::write(&spec_file, spec(DATASETS))?;
    let said = place.says("plan own.toml")?;
    holds(
        &said,
        &["mine", "stars", "4 training jobs and 8 evaluation jobs"],
    )?;

    let said = place.says("run own.toml")?;
    holds(
        &said,
        &[
            "12 of 12 jobs",
            "Table 2. Overall performance under random missing on stars",
            "Table 3. Overall performance under random missing on mine",
            "Acc-6",
            "Acc-5",
        ],
    )?;

    // Outputs come from the database alone.
    std::fs::remove_file(&spec_file)?;
    let said = place.says("table 3 --compare published")?;
    holds(&said, &["mine", "nothing is published for mine"])?;
    let said = place.says("table 9 --format csv --laziness")?;
    holds(&said, &["stars", "acc6", "laziness"])?;
    let error_of_stars = said
        .lines()
        .filter(|line| line.contains("stars") && line.contains("mae"))
        .filter_map(|line| line.split(',').nth(7)?.parse::<f64>().ok())
        .fold(0.0, f64::max);
    ensure!(
        (0.01..2.5).contains(&error_of_stars),
        "stars are not predicted on their scale:\n{said}"
    );
    let said = place.says("compare lnln self-mm --dataset mine --metric acc5 --all --draws 100")?;
    holds(&said, &["mine", "Acc-5"])?;
    let said = place.refuses("compare lnln self-mm --dataset theirs")?;
    holds(
        &said,
        &["unknown dataset `theirs`", "mosi, mosei, sims, mine, stars"],
    )?;
    for (line, parts) in [
        (
            "figure confusion --dataset stars --out c.svg",
            ["stars", "Confusion"],
        ),
        ("figure 2 --out curves.svg", ["curves.svg", "rate"]),
        (
            "figure 4 --dataset mine --out labels.svg",
            ["labels.svg", "labels"],
        ),
        ("figure ranks --out ranks.svg", ["ranks.svg", "rank"]),
    ] {
        holds(&place.says(line)?, &parts)?;
    }
    let said = place.refuses("figure confusion --out c.svg")?;
    holds(&said, &["--dataset", "mine, stars"])?;
    // A model of two epochs may cause warnings; results must match the predictions.
    let ended = place.coord("audit own --json")?.output()?;
    let said = String::from_utf8(ended.stdout)?;
    ensure!(matches!(ended.status.code(), Some(0 | 4)), "{said}");
    ensure!(
        !said.contains("wrong-result") && said.contains("nothing is published for a dataset"),
        "{said}"
    );
    place.says("report own --out report --draws 100")?;
    let report = std::fs::read_to_string(place.0.path().join("report/report.html"))?;
    holds(
        &report,
        &[
            "nothing is published for mine",
            "protocol of stars",
            "labels 0 to 5",
            "Confusion matrices on mine",
        ],
    )?;
    place.says("export own --what predictions --out predictions.csv")?;
    let exported = std::fs::read_to_string(place.0.path().join("predictions.csv"))?;
    let stars = exported.lines().filter(|line| line.contains(",stars,"));
    let mut numbers = 0;
    for line in stars {
        let value = line.rsplit(',').next().context("a prediction")?;
        let value: f64 = value.parse()?;
        ensure!((-5.0..10.0).contains(&value), "{line}");
        numbers += 1;
    }
    ensure!(numbers > 0, "no predictions of stars");
    Ok(())
}
