use super::{
    check::{NATS_MIN, POSTGRES_MIN, TORCH, Version},
    search::installed,
    *,
};
use halfheard_shared::error::{Printer, hint_of};
use std::{os::unix::fs::PermissionsExt as _, path::Path};

const PRINTER: Printer = Printer::new(&[hint_of::<ProgramError>]);

fn bare() -> Programs {
    Programs {
        variables: Vec::new(),
        deps: Vec::new(),
        path: Vec::new(),
        beside: Vec::new(),
    }
}

fn script(path: &Path, says: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn variable_precedes_deps_and_deps_precede_path() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    script(&at("own"), "nats-server: v2.12.1");
    script(&at("deps/nats/nats-server"), "nats-server: v2.15.0");
    script(&at("bin/nats-server"), "nats-server: v2.11.0");
    let mut programs = bare();
    programs.path = vec![at("empty"), at("bin")];
    assert_eq!(
        programs.find(Part::Nats).unwrap().path,
        at("bin/nats-server")
    );
    programs.deps = vec![at("deps")];
    assert_eq!(
        programs.find(Part::Nats).unwrap().path,
        at("deps/nats/nats-server")
    );
    let programs = programs.with(Part::Nats, at("own"));
    assert_eq!(
        programs.find(Part::Nats).unwrap().version,
        "nats-server: v2.12.1"
    );
    let error = programs
        .with(Part::Nats, at("gone"))
        .find(Part::Nats)
        .unwrap_err();
    assert!(
        error.to_string().contains("HALFHEARD_NATS_SERVER names it"),
        "{error}"
    );
}

#[test]
fn deps_of_another_user_are_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let deps = folder.path().join(".deps");
    std::fs::create_dir(&deps).unwrap();
    let above = [folder.path().join("bin"), folder.path().to_owned()];
    assert_eq!(installed(None, &above), std::slice::from_ref(&deps));
    if nix::unistd::geteuid().is_root() {
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        std::os::unix::fs::chown(&deps, Some(nobody.uid.as_raw()), None).unwrap();
        assert!(installed(None, &above).is_empty());
        // Unless the program itself is that user's.
        assert_eq!(installed(Some(&deps), &above), [deps]);
    }
}

#[test]
fn outdated_or_missing_program_is_rejected_with_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("nats-server");
    script(&old, "nats-server: v2.9.25");
    let error = bare()
        .with(Part::Nats, &old)
        .find(Part::Nats)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("2.9.25") && error.contains("2.10 or newer"),
        "{error}"
    );
    let error = bare().find(Part::Postgres).err();
    // A machine may have its own.
    if let Some(error) = error {
        let error = PRINTER.plain(&error);
        assert!(error.contains("make setup"), "{error}");
    }
    let error = PRINTER.plain(&bare().find(Part::EncoderEn).unwrap_err());
    assert!(error.contains("HALFHEARD_ENCODER_EN"), "{error}");
}

#[test]
fn version_is_found_in_text() {
    assert_eq!(Version::find("nats-server: v2.15.1"), Some(Version(2, 15)));
    assert_eq!(
        Version::find("postgres (PostgreSQL) 18.6"),
        Some(Version(18, 6))
    );
    assert_eq!(
        Version::find("postgres (PostgreSQL) 19devel"),
        Some(Version(19, 0))
    );
    assert_eq!(Version::find("2.11.0+cpu"), Some(Version(2, 11)));
    assert_eq!(Version::find("none"), None);
}

#[test]
fn encoder_is_described_by_its_architecture() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let find = || {
        bare()
            .with(Part::EncoderEn, folder.path())
            .find(Part::EncoderEn)
    };
    assert!(find().unwrap_err().to_string().contains("no config.json"));
    write("config.json", r#"{"model_type": "gpt2"}"#);
    let error = PRINTER.plain(&find().unwrap_err());
    assert!(error.contains("it is a `gpt2`"), "{error}");
    assert_eq!(
        error.matches("docs/reference/encoders.md").count(),
        1,
        "{error}"
    );
    write(
        "config.json",
        r#"{"model_type": "bert", "hidden_size": 4, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 6, "vocab_size": 104,
            "max_position_embeddings": 8}"#,
    );
    let config = halfheard_shared::encoder::Config::read(folder.path()).unwrap();
    let zeros = [0; 4 * 104 * 4];
    let tensors = config.tensors().map(|(name, shape)| {
        let shape: Vec<usize> = shape.iter().map(|&d| d as usize).collect();
        let bytes = &zeros[..4 * shape.iter().product::<usize>()];
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, bytes);
        (name, view.unwrap())
    });
    let weights = safetensors::serialize(tensors, None).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), weights).unwrap();
    assert_eq!(
        find().unwrap().version,
        "BERT of width 4, 1 layers, 104 tokens"
    );
}

#[test]
fn versions_are_pinned_in_deps_json() {
    assert!(*NATS_MIN >= Version(2, 10));
    assert!(*POSTGRES_MIN >= Version(15, 0));
    assert!(*TORCH >= Version(2, 0));
}
