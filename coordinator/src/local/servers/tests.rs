use super::{
    super::{Connection, stale},
    *,
};
use halfheard_shared::error::{Printer, hint_of};
use halfheard_store::Store;
use sqlx::{ConnectOptions as _, Row as _};
use std::{
    process::Command,
    time::{Duration, Instant},
};

const PRINTER: Printer = Printer::new(&[hint_of::<LocalError>]);

fn programs() -> Programs {
    Programs::with_deps(concat!(env!("CARGO_MANIFEST_DIR"), "/../.deps"))
}

/// A folder that others may enter, as a home usually is.
fn data_dir() -> tempfile::TempDir {
    with_mode(0o755)
}

fn with_mode(mode: u32) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    folder
}

async fn broker(servers: &Servers) -> halfheard_shared::broker::Broker {
    let settings = halfheard_shared::broker::BrokerSettings::at(servers.nats_url());
    settings.connect().await.unwrap()
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn process_is_gone(pid: u32) -> bool {
    stale::command_line(pid.cast_signed()).is_none()
}

/// How long to wait for a state: only a hang takes so long.
const TIMEOUT: Duration = Duration::from_secs(300);

async fn soon(what: &str, mut happens: impl FnMut() -> bool) {
    let since = Instant::now();
    while !happens() {
        assert!(since.elapsed() < TIMEOUT, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn second_run_continues_with_data_of_the_first() {
    let folder = data_dir();
    let dir = folder.path().join("data");
    assert!(!Servers::exists(&dir));
    let error = Servers::start_database(&dir, &programs())
        .await
        .unwrap_err();
    assert!(matches!(error, LocalError::Empty { .. }), "{error}");

    let servers = Servers::start(&dir, &programs()).await.unwrap();
    let store = Store::connect_with(servers.database()).await.unwrap();
    store.migrate().await.unwrap();
    let fsync: String = sqlx::query("SHOW fsync")
        .fetch_one(store.pool())
        .await
        .unwrap()
        .get(0);
    assert_eq!(fsync, "on");
    sqlx::query("CREATE TABLE memory AS SELECT 42 AS answer")
        .execute(store.pool())
        .await
        .unwrap();
    store.pool().close().await;
    let first = broker(&servers).await;
    first.ensure(&installation()).await.unwrap();
    first
        .jetstream()
        .publish(first.names().result("x"), "payload".into())
        .await
        .unwrap()
        .await
        .unwrap();
    drop(first);

    // Other logins are rejected, and secrets are readable by their owner only.
    let stranger = servers.database().password("wrong").connect().await;
    assert!(stranger.is_err());
    let stranger = async_nats::connect(servers.nats().unwrap().address()).await;
    assert!(stranger.is_err());
    for file in [
        "connection.json",
        "pgpass",
        "postgres-password",
        "nats/nats.conf",
    ] {
        assert_eq!(mode(&servers.folder().join(file)), 0o600, "{file}");
    }

    // Another process may connect to it but not start its own.
    let connection = Connection::of_running(&dir).unwrap();
    assert_eq!(Some(connection.nats_url.unwrap()), Some(servers.nats_url()));
    let error = Servers::start(&dir, &programs()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("process {}", std::process::id())),
        "{error}"
    );
    servers.stop().await;
    assert!(Connection::of_running(&dir).is_none());

    let servers = Servers::start_database(&dir, &programs()).await.unwrap();
    assert!(servers.nats().is_none());
    let mut connection = servers.database().connect().await.unwrap();
    let answer: i32 = sqlx::query_scalar("SELECT answer FROM memory")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(answer, 42);
    drop(connection);
    drop(servers);

    let servers = Servers::start(&dir, &programs()).await.unwrap();
    let again = broker(&servers).await;
    let name = again.names().results_stream();
    let results = again.jetstream().get_stream(name).await.unwrap();
    assert_eq!(results.cached_info().state.messages, 1);
    servers.stop().await;
}

fn installation() -> halfheard_shared::broker::topology::Installation {
    halfheard_shared::broker::topology::Installation {
        id: uuid::Uuid::from_u128(1),
        name: "test".to_owned(),
    }
}

#[tokio::test]
async fn crashed_servers_restart_on_the_same_port_and_files() {
    let folder = data_dir();
    let mut servers = Servers::start(folder.path(), &programs()).await.unwrap();
    let url = servers.nats_url();
    let broker = broker(&servers).await;
    broker.ensure(&installation()).await.unwrap();
    let nats = servers.nats.as_mut().unwrap();
    nats.kill().await;
    nats.restart().await.unwrap();
    assert_eq!(servers.nats_url(), url);
    // The client reconnects on its own.
    let since = Instant::now();
    while broker.results().await.is_err() {
        assert!(since.elapsed() < TIMEOUT);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    assert!(servers.restart_exited().await.unwrap().is_empty());
    let postgres = servers.postgres.data().join("postmaster.pid");
    let pid = std::fs::read_to_string(&postgres).unwrap();
    let pid: i32 = pid.lines().next().unwrap().parse().unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    soon("Postgres exits", || servers.postgres.has_exited()).await;
    assert_eq!(servers.restart_exited().await.unwrap(), ["Postgres"]);
    servers.database().connect().await.unwrap();
    servers.stop().await;
}

#[tokio::test]
async fn leftover_server_is_stopped_before_a_new_one_starts() {
    let folder = data_dir();
    let found = programs().find(Part::Nats).unwrap();
    NatsServer::start(&found, folder.path())
        .await
        .unwrap()
        .stop()
        .await;
    let mut left = Command::new(&found.path)
        .arg("-c")
        .arg(folder.path().join("nats.conf"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid_file = folder.path().join("nats.pid");
    soon("its number is written", || {
        std::fs::read_to_string(&pid_file).is_ok_and(|text| text == left.id().to_string())
    })
    .await;
    let left = std::thread::spawn(move || left.wait().unwrap());
    let mut fresh = NatsServer::start(&found, folder.path()).await.unwrap();
    assert!(left.is_finished());
    fresh.stop().await;
}

#[tokio::test]
async fn process_with_reused_id_is_left_alone() {
    let folder = data_dir();
    let mut servers = Servers::start(folder.path(), &programs()).await.unwrap();
    servers.postgres.kill().await;
    // The number in the file now means this test's own process.
    let file = servers.postgres.data().join("postmaster.pid");
    let text = std::fs::read_to_string(&file).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    std::fs::write(&file, format!("{}\n{rest}", std::process::id())).unwrap();
    drop(servers);
    let servers = Servers::start(folder.path(), &programs()).await.unwrap();
    servers.stop().await;
}

#[tokio::test]
async fn files_of_another_version_are_rejected() {
    let folder = data_dir();
    let servers = Servers::start(folder.path(), &programs()).await.unwrap();
    let version = servers.postgres.data().join("PG_VERSION");
    servers.stop().await;
    std::fs::write(version, "9\n").unwrap();
    let error = Servers::start(folder.path(), &programs())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("created by PostgreSQL 9"),
        "{error}"
    );
}

#[tokio::test]
async fn start_failure_reports_the_log() {
    let folder = data_dir();
    let config = folder.path().join("embedded/nats");
    std::fs::create_dir_all(&config).unwrap();
    // A file where the streams should be.
    std::fs::write(config.join("streams"), "").unwrap();
    let error = Servers::start(folder.path(), &programs())
        .await
        .unwrap_err();
    let error = PRINTER.plain(&error);
    assert!(
        error.contains("nats-server does not start") && error.contains("  | "),
        "{error}"
    );
}

/// Postgres' files go elsewhere if only root can enter the folder, like `/root`.
#[tokio::test]
async fn private_folder_works_as_root() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let closed = with_mode(0o700);
    let found = programs().find(Part::Postgres).unwrap();
    // The programs are inaccessible, too.
    let whole = closed.path().join("postgres");
    files::copy_tree(found.path.parent().unwrap(), &whole).unwrap();
    let programs = programs().with(Part::Postgres, whole.join("bin"));
    let dir = closed.path().join("data");
    let servers = Servers::start(&dir, &programs).await.unwrap();
    let data = servers.postgres.data().to_owned();
    let copy = servers
        .postgres
        .programs_for_tests()
        .parent()
        .unwrap()
        .to_owned();
    assert!(!data.starts_with(closed.path()), "{}", data.display());
    servers.stop().await;
    let servers = Servers::start(&dir, &programs).await.unwrap();
    assert_eq!(servers.postgres.data(), data);
    servers.stop().await;
    std::fs::remove_dir_all(data.parent().unwrap()).unwrap();
    std::fs::remove_dir_all(copy).unwrap();
}

/// Not a test of its own: the process that [`children_die_with_their_parent`] kills.
#[tokio::test]
async fn parent_to_be_killed() {
    let Some(folder) = std::env::var_os("HALFHEARD_TEST_PARENT") else {
        return;
    };
    let _embedded = Servers::start(Path::new(&folder), &programs())
        .await
        .unwrap();
    std::fs::write(Path::new(&folder).join("up"), "").unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn children_die_with_their_parent() {
    let folder = data_dir();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "local::servers::tests::parent_to_be_killed"])
        .env("HALFHEARD_TEST_PARENT", folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    soon("the servers are up", || folder.path().join("up").exists()).await;
    let root = folder.path().join("embedded");
    let number = |path: &Path| -> u32 {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().next().unwrap().trim().parse().unwrap()
    };
    let nats = number(&root.join("nats/nats.pid"));
    let postgres = number(&root.join("postgres/data/postmaster.pid"));
    assert!(!process_is_gone(nats) && !process_is_gone(postgres));
    parent.kill().unwrap();
    parent.wait().unwrap();
    soon("nats-server ends", || process_is_gone(nats)).await;
    soon("Postgres ends", || process_is_gone(postgres)).await;
    // And the folder can be used at once.
    Servers::start(folder.path(), &programs())
        .await
        .unwrap()
        .stop()
        .await;
}
