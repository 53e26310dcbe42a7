//! What every store promises, asked of each; and what remains when one fails, or the power does.

use super::*;
use crate::env::Env;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

fn folder() -> (TempDir, Arc<dyn Store>) {
    let directory = TempDir::new().unwrap();
    let store = FolderStore::open(&directory.path().join("tier"), Env::real()).unwrap();
    (directory, Arc::new(store))
}

fn is(error: &crate::error::Error, kind: std::io::ErrorKind) -> bool {
    matches!(error, crate::error::Error::Io { source, .. } if source.kind() == kind)
}

/// The promises. `scratch` is a local folder.
async fn conforms(store: Arc<dyn Store>, scratch: &Path) {
    use std::io::ErrorKind::{NotFound, UnexpectedEof};
    assert!(store.list("a").await.unwrap().is_empty());
    assert_eq!(store.size("a/b").await.unwrap(), None);
    assert!(is(&store.get("a/b", 0..1).await.unwrap_err(), NotFound));
    store.delete("a/b").await.unwrap();

    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let file = scratch.join("file");
    std::fs::write(&file, &bytes).unwrap();
    store.put("a/x=1/b", file.clone()).await.unwrap();
    assert_eq!(store.size("a/x=1/b").await.unwrap(), Some(3_000_000));
    assert_eq!(store.get("a/x=1/b", 0..3_000_000).await.unwrap(), bytes);
    assert_eq!(store.get("a/x=1/b", 7..2_000_003).await.unwrap(), bytes[7..2_000_003]);
    assert!(store.get("a/x=1/b", 5..5).await.unwrap().is_empty());
    assert!(is(&store.get("a/x=1/b", 5..3_000_001).await.unwrap_err(), UnexpectedEof));
    std::fs::write(&file, b"again").unwrap();
    store.put("a/x=1/b", file).await.unwrap();
    assert_eq!(store.get("a/x=1/b", 0..5).await.unwrap(), "again");

    let put = |path: &'static str, text: &'static str| store.create(path, text.into());
    assert_eq!(put("a/c", "first").await.unwrap(), Created::Created);
    assert_eq!(put("a/c", "second").await.unwrap(), Created::Exists);
    assert_eq!(store.get("a/c", 0..5).await.unwrap(), "first");
    assert_eq!(put("ab/c", "").await.unwrap(), Created::Created);
    let object = |path: &str, size| Object { path: path.to_owned(), size };
    let all = [object("a/c", 5), object("a/x=1/b", 5)];
    assert_eq!(store.list("a").await.unwrap(), all);
    assert_eq!(store.list("a/").await.unwrap(), all);
    assert_eq!(store.list("").await.unwrap().len(), 3);
    store.delete("a/c").await.unwrap();
    store.delete("a/c").await.unwrap();
    assert_eq!(store.list("a").await.unwrap(), all[1..]);
    assert_eq!(put("a/c", "third").await.unwrap(), Created::Created);

    for round in 0..10 {
        let path = format!("race/{round}");
        let racers = (0..16).map(|racer| store.create(&path, format!("by {racer:02}").into()));
        let outcomes = futures::future::join_all(racers).await;
        let won: Vec<_> = outcomes.into_iter().map(Result::unwrap).enumerate().collect();
        let winners: Vec<_> = won.iter().filter(|(_, one)| *one == Created::Created).collect();
        let [(winner, _)] = winners[..] else { panic!("{won:?}") };
        let there = store.get(&path, 0..5).await.unwrap();
        assert_eq!(there, format!("by {winner:02}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_the_promises() {
    let (directory, store) = folder();
    conforms(store, directory.path()).await;
    let left = std::fs::read_dir(directory.path().join("tier/_ottla/tmp")).unwrap();
    assert_eq!(left.count(), 0);
}

/// `OTTLA_TEST_BUCKET` is the URL of a bucket that the environment has credentials for.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_keeps_the_promises() {
    let Ok(url) = std::env::var("OTTLA_TEST_BUCKET") else {
        eprintln!("skipped: OTTLA_TEST_BUCKET is not set");
        return;
    };
    let directory = TempDir::new().unwrap();
    let url = format!("{url}/{:016x}", Env::real().random.u64());
    let Location::Cloud(url) = Location::parse(&url).unwrap() else { panic!("{url}") };
    let store = Arc::new(CloudStore::open(&url, Env::real()).unwrap());
    conforms(store.clone(), directory.path()).await;

    // In several parts.
    let bytes: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect();
    let file = directory.path().join("large");
    std::fs::write(&file, &bytes).unwrap();
    store.put("large", file).await.unwrap();
    assert_eq!(store.size("large").await.unwrap(), Some(20_000_000));
    assert_eq!(
        store.get("large", 8_000_000..17_000_001).await.unwrap(),
        bytes[8_000_000..17_000_001]
    );
    for object in store.list("").await.unwrap() {
        store.delete(&object.path).await.unwrap();
    }
}

#[tokio::test]
async fn a_folder_that_is_away_is_no_empty_store() {
    let (directory, store) = folder();
    store.create("a", "b".into()).await.unwrap();
    let (here, there) = (directory.path().join("tier"), directory.path().join("elsewhere"));
    std::fs::rename(&here, &there).unwrap();
    for error in [
        store.list("").await.unwrap_err(),
        store.size("a").await.unwrap_err(),
        store.create("a", "c".into()).await.unwrap_err(),
        store.delete("a").await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("could not find the tier at"), "{error}");
    }
    assert!(!here.exists());
    std::fs::rename(&there, &here).unwrap();
    assert_eq!(store.get("a", 0..1).await.unwrap(), "b");
}

/// Each call is made, the power is cut at each of its steps, and the folder is opened again.
#[cfg(feature = "sim")]
#[tokio::test]
async fn a_power_cut_leaves_an_object_whole_or_none() {
    use crate::env::sim::Simulation;
    let root = Path::new("/data/tier");
    let (old, new) = (Bytes::from(vec![1; 9000]), Bytes::from(vec![2; 20_000]));
    let (mut lost, mut kept, mut interrupted) = (0, 0, 0);
    for seed in 0..300 {
        let run = Simulation::new(seed);
        let open = || FolderStore::open(root, run.env()).unwrap();
        let store = open();
        let file = Path::new("/data/file");
        let handle = run.env().disk.open(file, crate::env::OpenMode::CreateEmpty).unwrap();
        handle.write_all_at(&[&new], 0).unwrap();
        store.create("a/there", old.clone()).await.unwrap();
        store.create("a/deleted", old.clone()).await.unwrap();
        run.disk.crash_after(seed % 12);
        let puts = seed % 2 == 0;
        let done = if puts {
            store.put("a/object", file.to_path_buf()).await.map(|()| Created::Created)
        } else {
            store.create("a/object", new.clone()).await
        };
        let exists = store.create("a/there", new.clone()).await;
        let deleted = store.delete("a/deleted").await;
        assert!(!matches!(exists, Ok(Created::Created)));
        run.disk.power_cut();
        let store = open();
        assert_eq!(store.get("a/there", 0..9000).await.unwrap(), old, "seed {seed}");
        match store.size("a/object").await.unwrap() {
            Some(size) => {
                assert_eq!(store.get("a/object", 0..size).await.unwrap(), new, "seed {seed}");
                kept += 1;
            }
            None => {
                assert!(done.is_err(), "seed {seed}: it was lost");
                lost += 1;
            }
        }
        interrupted += u32::from(done.is_err());
        if deleted.is_ok() {
            assert_eq!(store.size("a/deleted").await.unwrap(), None, "seed {seed}");
        }
    }
    assert!(lost > 20 && kept > 20 && interrupted > 50, "{lost} {kept} {interrupted}");
}

/// A bucket on the machine of the test, for a process that does not end.
#[cfg(feature = "sim")]
fn bucket(seed: u64, env: Env) -> (SimBucket, Arc<dyn Store>) {
    use crate::env::sim::{SimRandom, Trace};
    let bucket = SimBucket::new(SimRandom::stream(seed, "bucket"), Trace::default());
    let store = bucket.of_process(env.clone(), Arc::default());
    (bucket, Arc::new(GuardedStore::over(store, env)))
}

#[cfg(feature = "sim")]
#[tokio::test]
async fn a_simulated_bucket_keeps_the_promises() {
    let directory = TempDir::new().unwrap();
    conforms(bucket(1, Env::real()).1, directory.path()).await;
}

/// Whatever goes wrong, nobody is told anything that is not so, every call ends, and who tries again comes to an end.
#[cfg(feature = "sim")]
#[tokio::test(start_paused = true)]
async fn a_simulated_bucket_that_is_disturbed_breaks_no_promise() {
    use crate::env::sim::SimRun;
    let run = SimRun::new(3);
    let machine = run.machine("node", [10, 0, 0, 1].into());
    let (bucket, store) = bucket(3, machine.env());
    bucket.disturb(2);
    let (mut failed, mut found_own) = (0, 0);
    for number in 0..300 {
        let (path, text) = (format!("a/{number:04}"), Bytes::from(format!("text {number}")));
        let created = loop {
            match store.create(&path, text.clone()).await {
                Ok(created) => break created,
                Err(_) => failed += 1,
            }
        };
        found_own += usize::from(created == Created::Exists);
        let other = store.create(&path, Bytes::from_static(b"another")).await;
        assert!(!matches!(other, Ok(Created::Created)), "{path}");
        match store.get(&path, 0..text.len() as u64).await {
            Ok(bytes) => assert_eq!(bytes, text),
            Err(_) => failed += 1,
        }
    }
    assert!(failed > 100 && found_own > 20, "{failed} failed, {found_own} found their own words");
    bucket.disturb(0);
    // What comes late has come by then.
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let all = store.list("a").await.unwrap();
    let paths: Vec<_> = all.iter().map(|object| object.path.clone()).collect();
    assert_eq!(paths, bucket.paths("a/"));
    assert_eq!(paths.len(), 300);
}

#[cfg(feature = "sim")]
#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_fails_each_call() {
    let env = Env {
        threads: crate::env::sim::SimRun::new(1).machine("x", [10, 0, 0, 1].into()).env().threads,
        ..Env::real()
    };
    let (bucket, store) = bucket(1, env);
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "text").unwrap();
    store.create("a", "b".into()).await.unwrap();
    bucket.stop_after(0, true);
    let errors = [
        store.list("a").await.unwrap_err(),
        store.get("a", 0..1).await.unwrap_err(),
        store.size("a").await.unwrap_err(),
        store.put("b", file).await.unwrap_err(),
        store.create("c", "d".into()).await.unwrap_err(),
        store.delete("a").await.unwrap_err(),
    ];
    for error in errors {
        let text = error.chain();
        assert!(is(&error, std::io::ErrorKind::TimedOut), "{text}");
        assert!(text.contains("the store did not answer within"), "{text}");
    }
    bucket.go_on();
    assert_eq!(store.get("a", 0..1).await.unwrap(), "b");
}

/// A folder whose server is gone: its calls wait, and others of the process still find a thread.
#[cfg(feature = "sim")]
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_hangs_takes_few_threads() {
    use crate::env::sim::StallingDisk;
    let directory = TempDir::new().unwrap();
    let disk = Arc::new(StallingDisk::over(Env::real().disk));
    let env = Env { disk: Arc::<StallingDisk>::clone(&disk), ..Env::real() };
    let store = FolderStore::open(&directory.path().join("tier"), env).unwrap();
    disk.stall(true);
    let calls: Vec<_> = (0..100)
        .map(|number| tokio::spawn(store.create(&format!("a/{number}"), "b".into())))
        .collect();
    let waits = Arc::clone(&disk);
    tokio::task::spawn_blocking(move || waits.wait_for(16)).await.unwrap();
    // As many more as there could be threads: each is there before the next call begins.
    for _ in 0..100 {
        tokio::task::spawn_blocking(|| {}).await.unwrap();
    }
    assert_eq!(disk.waiting(), 16);
    disk.stall(false);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), Created::Created);
    }
}
