//! No program shows a secret of an address, whatever the address's source.

use anyhow::{Result, ensure};
use halfheard_e2e::{
    programs::{coord, worker},
    stage::Stage,
    tiny::Tiny,
};

#[tokio::test(flavor = "multi_thread")]
async fn login_in_the_artifacts_address_is_rejected_and_never_shown() -> Result<()> {
    let stage = Stage::start().await?;
    Tiny::make(stage.data_dir(), 32)?;
    let spec = stage.data_dir().join("tiny.toml");
    let text = r#"
        name = "tiny"
        methods = ["almt"]
        seeds = [1]
        rates = [0.0]
        [datasets.mosi]
        file = "tiny.safetensors"
        [encoders.en]
        path = "tiny-encoder"
    "#;
    std::fs::write(&spec, text)?;
    for address in [
        "s3://key:hush@bucket/prefix",
        "nats://key:hush@host",
        "key:hush@bucket",
        "ftp://key:hush@bucket",
    ] {
        let mut worker = worker(&stage)?;
        let mut push = coord(&stage)?;
        let mut doctor = coord(&stage)?;
        push.args(["submit", "--push"]).arg(&spec);
        doctor.arg("doctor");
        for (command, code) in [
            (&mut worker, Some(5)),
            (&mut push, Some(1)),
            (&mut doctor, None),
        ] {
            let ended = command
                .env("HALFHEARD_ARTIFACTS", address)
                .env("RUST_LOG", "debug")
                .output()?;
            let said = [ended.stdout, ended.stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            ensure!(!said.contains("hush"), "{command:?}: {said}");
            if let Some(code) = code {
                ensure!(
                    ended.status.code() == Some(code),
                    "{address}: {}: {said}",
                    ended.status
                );
                ensure!(said.contains("AWS_"), "{address}: {said}");
            }
        }
    }
    Ok(())
}
