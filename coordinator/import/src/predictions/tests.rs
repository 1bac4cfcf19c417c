use super::*;
use npyz::{WriterBuilder as _, npz::NpzWriter};
use std::collections::BTreeMap;

fn file(name: &str, content: impl AsRef<[u8]>) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

fn read_text(name: &str, content: &str) -> Result<Vec<Prediction>, PredictionsError> {
    let (_folder, path) = file(name, content);
    read(&path)
}

fn error(content: &str) -> String {
    read_text("p.csv", content).unwrap_err().to_string()
}

fn row(sample: &str, case: &str, value: f32) -> Prediction {
    Prediction {
        sample: sample.to_owned(),
        case: case.parse().unwrap(),
        value,
    }
}

#[test]
fn csv_is_read_in_any_order_of_columns() {
    let text = "\u{feff}case,Prediction,note,sample\nr=0.5,-1.25,x,a$_$1\nmissing=la, 3e-1 ,,7\n";
    assert_eq!(
        read_text("p.CSV", text).unwrap(),
        [row("a$_$1", "r=0.5", -1.25), row("7", "missing=la", 0.3)]
    );
}

#[test]
fn invalid_csv_is_refused_with_its_place() {
    assert_eq!(
        error("sample,case,pred\n"),
        "missing column `prediction`: the file has sample, case, pred"
    );
    assert_eq!(
        error("sample,case,prediction\n"),
        "the file has no predictions"
    );
    assert_eq!(
        error("sample,case,prediction\n0,r=0,1\n1,half,1\n"),
        "row 3: `half` is not a case"
    );
    for value in ["nan", "inf", "", "1e99", "x"] {
        assert_eq!(
            error(&format!("sample,case,prediction\n0,r=0,{value}\n")),
            format!("row 2: the prediction `{value}` is not a finite number")
        );
    }
    assert_eq!(error("sample,case,prediction\n0,r=0\n"), "not valid CSV");
    let unknown = read_text("p.txt", "").unwrap_err().to_string();
    assert!(unknown.contains("by its extension"), "{unknown}");
}

#[test]
fn damaged_archives_and_parquet_files_are_refused() {
    for name in ["p.npz", "p.parquet"] {
        for content in [
            &b""[..],
            b"PK\x03\x04",
            b"PAR1",
            b"PAR1\xff\xff\xff\x7fPAR1",
            &[0; 300],
        ] {
            let (_folder, path) = file(name, content);
            let message = read(&path).unwrap_err().to_string();
            assert!(message.contains("valid"), "{name}: {message}");
        }
    }
}

fn npz(arrays: &[(&str, &[f64])]) -> (tempfile::TempDir, std::path::PathBuf) {
    let (folder, path) = file("p.npz", "");
    let mut archive = NpzWriter::create(&path).unwrap();
    for (name, values) in arrays {
        let array = archive.array(name, Default::default()).unwrap();
        let mut writer = array
            .default_dtype()
            .shape(&[values.len() as u64])
            .begin_nd()
            .unwrap();
        writer.extend(values.iter()).unwrap();
        writer.finish().unwrap();
    }
    drop(archive);
    (folder, path)
}

#[test]
fn arrays_named_after_cases_are_in_the_datasets_order() {
    let (_folder, path) = npz(&[("r=0", &[0.5, -1.0]), ("missing=v", &[2.0, 3.0])]);
    let mut rows = read(&path).unwrap();
    rows.sort_by_key(|row| (row.case, row.sample.clone()));
    let arranged = arrange(&rows, None, 2).unwrap();
    let expected: BTreeMap<Case, Vec<f32>> = BTreeMap::from([
        ("r=0".parse().unwrap(), vec![0.5, -1.0]),
        ("missing=v".parse().unwrap(), vec![2.0, 3.0]),
    ]);
    assert_eq!(arranged, expected);

    let (_folder, path) = npz(&[("sample", &[1.0, 0.0]), ("r=0", &[0.5, -1.0])]);
    let arranged = arrange(&read(&path).unwrap(), None, 2).unwrap();
    assert_eq!(arranged[&"r=0".parse().unwrap()], [-1.0, 0.5]);

    let (_folder, path) = npz(&[("sample", &[1.0]), ("r=0", &[0.5, -1.0])]);
    let message = read(&path).unwrap_err().to_string();
    assert!(message.contains("another number"), "{message}");
    let (_folder, path) = npz(&[("half", &[1.0])]);
    let message = read(&path).unwrap_err().to_string();
    assert!(message.starts_with("array `half`"), "{message}");
    let (_folder, path) = npz(&[("r=0", &[1.0, f64::NAN])]);
    let message = read(&path).unwrap_err().to_string();
    assert!(message.contains("value 1 is not finite"), "{message}");
}

#[test]
fn each_sample_is_there_once() {
    let ids = ["a", "b", "c"];
    let rows = |samples: &[&str]| -> Vec<Prediction> {
        samples
            .iter()
            .map(|sample| row(sample, "r=0", 1.0))
            .collect()
    };
    let message = |samples: &[&str], ids: Option<&[&str]>| {
        arrange(&rows(samples), ids, 3).unwrap_err().to_string()
    };
    assert!(arrange(&rows(&["c", "a", "b"]), Some(&ids), 3).is_ok());
    assert!(arrange(&rows(&["2", "0", "1"]), Some(&ids), 3).is_ok());
    assert!(arrange(&rows(&["2", "0", "1"]), None, 3).is_ok());
    assert_eq!(
        message(&["a", "b"], Some(&ids)),
        "case r=0: 1 of 3 samples are missing, the first is `c`"
    );
    assert_eq!(
        message(&["a", "b", "a"], Some(&ids)),
        "case r=0: sample `a` occurs twice"
    );
    assert_eq!(
        message(&["a", "b", "d"], Some(&ids)),
        "case r=0: unknown sample `d`"
    );
    assert_eq!(
        message(&["0", "1", "3"], None),
        "case r=0: unknown sample `3`"
    );
    assert!(message(&["a"], None).contains("is not here"));
    assert!(message(&["a"], Some(&["a", "a", "b"])).contains("several samples"));
    // Ids that are numbers are ids.
    let ids = ["1", "2", "3"];
    let values = arrange(
        &[
            row("1", "r=0", 1.0),
            row("2", "r=0", 2.0),
            row("3", "r=0", 3.0),
        ],
        Some(&ids),
        3,
    )
    .unwrap();
    assert_eq!(values[&"r=0".parse().unwrap()], [1.0, 2.0, 3.0]);
}
