//! The files of `ticketlog dead`, when a disk is full or a crash has cut them off.

use std::path::Path;
use std::process::{Command, Stdio};

use lapin::BasicProperties;

use crate::harness::{CommandOutput, TestEnv};

async fn with_dead_letters(count: i32, bytes: usize) -> TestEnv {
    let env = TestEnv::new().await;
    let dead_letter = |n: i32| {
        let headers = env.headers(&format!("id-{n}"), "not_an_object", n);
        let body = format!("[{n}, \"{}\"]", "x".repeat(bytes));
        (body.into_bytes(), BasicProperties::default().with_headers(headers))
    };
    env.publish_dead_letters((0..count).map(dead_letter)).await;
    env
}

/// `ticketlog dead …` where a file can have this many blocks of 512 bytes, as on a disk that is full then.
async fn dead_command_with_full_disk(env: &TestEnv, blocks: u32, arguments: &[&str]) -> CommandOutput {
    let program = env.build_dead_command(arguments);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\""), "sh"]);
    command.arg(program.get_program()).args(program.get_args()).stdin(Stdio::null());
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    tokio::task::spawn_blocking(move || command.output().unwrap().into()).await.unwrap()
}

fn lines(path: &Path) -> usize {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'), "the last line is complete");
    let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    text.lines().map(parse).filter(|line| line["format"] == "ticketlog-dead-letter/1").count()
}

#[tokio::test]
async fn a_file_that_is_cut_off_is_imported_up_to_its_last_complete_line() {
    let env = with_dead_letters(30, 50).await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    env.dead_command_succeeds(&["export", &path("whole")]).await;
    env.dead_command_succeeds(&["purge", "--yes", "--no-backup"]).await;
    let whole = std::fs::read(path("whole")).unwrap();
    let queue = env.dead_letter_queue();
    let import = async |bytes: &[u8], json: bool| {
        std::fs::write(path("file"), bytes).unwrap();
        let file = path("file");
        let arguments = ["import", &file, "--json"];
        env.dead_command(&arguments[..if json { 3 } else { 2 }]).await
    };
    // Cut anywhere in the last line; filled up with zeros, as after a power failure.
    let zeros = [&whole[..whole.len() - 10], &[0; 100]].concat();
    for cut in [&whole[..whole.len() - 2], &whole[..whole.len() - 100], &zeros] {
        let imported = import(cut, false).await;
        assert_eq!(imported.code, Some(65), "{imported:?}");
        assert!(imported.err.contains("file:30: this line is cut off after"), "{imported:?}");
        assert!(imported.out.contains("29 dead letters imported"), "{imported:?}");
        assert!(imported.err.contains("all lines before it are imported"), "{imported:?}");
        env.wait_for_depth(&queue, 29).await;
        env.dead_command_succeeds(&["purge", "--yes", "--no-backup"]).await;
    }
    let json: serde_json::Value = serde_json::from_str(&import(&whole[..whole.len() - 9], true).await.out).unwrap();
    assert!(json["imported"] == 29 && json["cut_off"].as_str().unwrap().contains(":30:"), "{json}");
    env.dead_command_succeeds(&["purge", "--yes", "--no-backup"]).await;
    let refused = env.dead_command(&["import", &path("file"), "--queue", "no.such.queue"]).await;
    assert!(refused.code == Some(69) && refused.err.contains("file:30: this line is cut off after"), "{refused:?}");
    assert!(refused.err.contains("29 lines were refused") && !refused.err.contains("are imported"), "{refused:?}");
    // Nobody reads the output.
    let mut command = env.build_dead_command(&["import", &path("file"), "--queue", "no.such.queue"]);
    command.stdout(std::io::pipe().unwrap().1).stderr(Stdio::null());
    assert_eq!(tokio::task::spawn_blocking(move || command.status().unwrap()).await.unwrap().code(), Some(69));
    // Without its last line end, the last line is complete.
    let imported = import(&whole[..whole.len() - 1], true).await;
    assert_eq!(imported.code, Some(0), "{imported:?}");
    env.wait_for_depth(&queue, 30).await;
    // A wrong line before the end was not cut off: nothing is imported.
    let text = String::from_utf8(whole).unwrap();
    let wrong = text.replacen("\"format\"", "\"for", 1);
    let refused = import(&wrong.as_bytes()[..wrong.len() - 10], false).await;
    assert!(refused.code == Some(65) && refused.err.contains("nothing was imported"), "{refused:?}");
    assert_eq!(env.depth(&queue).await, 30);
    env.clean().await;
}

#[tokio::test]
async fn a_message_that_rabbitmq_does_not_take_keeps_no_others_from_being_imported() {
    let env = with_dead_letters(3, 50).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let path = path.to_str().unwrap();
    env.dead_command_succeeds(&["export", path]).await;
    env.dead_command_succeeds(&["purge", "--yes", "--no-backup"]).await;
    let lines = std::fs::read_to_string(path).unwrap();
    let mut lines: Vec<String> = lines.lines().map(str::to_owned).collect();
    // Larger than RabbitMQ of any version takes by default: 16 MiB from 4.0 on, 128 MiB before.
    let mut large: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    large["body"] = serde_json::Value::String("x".repeat(129 << 20));
    lines.insert(1, large.to_string());
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
    let imported = env.dead_command(&["import", path]).await;
    assert!(imported.code == Some(69) && imported.err.contains("RabbitMQ refuses a message"), "{imported:?}");
    assert!(imported.err.contains("1 lines were refused"), "{imported:?}");
    env.wait_for_depth(&env.dead_letter_queue(), 3).await;
    env.clean().await;
}

#[tokio::test]
async fn a_full_disk_leaves_complete_lines_of_what_was_deleted_and_nothing_else() {
    let env = with_dead_letters(1_200, 600).await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let queue = env.dead_letter_queue();
    let purge = async |blocks: u32, name: &str| {
        let file = path(name).to_str().unwrap().to_owned();
        dead_command_with_full_disk(&env, blocks, &["purge", "--yes", "--backup", &file]).await
    };
    // Not even the first 500 fit.
    let failed = purge(200, "none").await;
    assert!(failed.code == Some(74) && failed.err.contains("none cannot be written: "), "{failed:?}");
    assert!(!path("none").exists(), "nothing was deleted, so there is no file");
    env.wait_for_depth(&queue, 1_200).await;
    // The first 500 fit, the next do not.
    let failed = purge(1_600, "some").await;
    assert!(failed.code == Some(74) && failed.err.contains("500 dead letters purged before the failure"), "{failed:?}");
    assert_eq!(lines(&path("some")), 500);
    env.wait_for_depth(&queue, 700).await;
    env.dead_command_succeeds(&["import", path("some").to_str().unwrap()]).await;
    env.wait_for_depth(&queue, 1_200).await;
    // The originals of a replay with edits.
    let (file, edit) = (path("originals"), "{n: .[0], user_id: 1}");
    let replay = ["replay", "--yes", "--edit", edit, "--to-queue", &queue, "--backup", file.to_str().unwrap()];
    let failed = dead_command_with_full_disk(&env, 100, &replay).await;
    assert_eq!(failed.code, Some(74), "{failed:?}");
    assert!(failed.out.contains(file.to_str().unwrap()), "the file is named: {failed:?}");
    assert!(lines(&file) > 10);
    let exported = path("export");
    let export = ["export", exported.to_str().unwrap()];
    let failed = dead_command_with_full_disk(&env, 100, &export).await;
    assert_eq!(failed.code, Some(74), "{failed:?}");
    let names: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "no part of an export: {names:?}");
    env.clean().await;
}

#[tokio::test]
async fn an_operation_that_did_not_happen_leaves_no_file() {
    let env = with_dead_letters(3, 10).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("backup");
    let name = file.to_str().unwrap();
    let none = ["purge", "--yes", "--reason", "too_deep", "--backup", name, "--json"];
    let json: serde_json::Value = serde_json::from_str(&env.dead_command_succeeds(&none).await.out).unwrap();
    assert!(json["purged"] == 0 && json["backup"].is_null() && !file.exists(), "{json}");
    let nowhere = env.dead_command(&["purge", "--yes", "--queue", "missing", "--backup", name]).await;
    assert!(nowhere.code != Some(0) && !file.exists(), "{nowhere:?}");
    std::fs::write(&file, "mine").unwrap();
    let exists = env.dead_command(&["purge", "--yes", "--backup", name]).await;
    assert!(exists.code == Some(73) && exists.err.contains("exists already"), "{exists:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    env.wait_for_depth(&env.dead_letter_queue(), 3).await;
    env.clean().await;
}
