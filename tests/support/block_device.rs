//! A disk whose power can be cut: a file system on a loop device, whose file lies on a file system with reflinks.
//!
//! A clone of that file is what the disk holds at one moment. It has every write that the device had completed, and of
//! what the system still kept in memory nothing. XFS makes it while it keeps all writers of the file waiting (its lock
//! of the inode; writes under way are waited for), so that each write of the device is in it whole or not at all; the
//! loop device uses direct I/O, so that nothing lies between the device and its file. So that direct I/O also works on
//! a file that shares its blocks with another, the file systems on it have blocks and sectors of 4,096 bytes.
//!
//! All is mounted in a namespace of the test's own, and each loop device goes with its mount: whatever happens to the
//! test, no mount and no device is left behind.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Set where the tests on block devices have to run: where they cannot they fail there, and are passed over elsewhere.
const REQUIRED: &str = "MESSENGER_TEST_DISKS_REQUIRED";
/// Set for a test that was started again in namespaces of its own.
const INSIDE: &str = "MESSENGER_TEST_INSIDE_NAMESPACE";
/// What `unshare` makes: mounts that nobody else sees, and processes that end with the first of them.
const NAMESPACES: &[&str] = &["--mount-proc", "--propagation", "private", "--pid", "--fork", "--kill-child"];
/// What has to be installed, and root.
const NEEDED: &str = "it takes root, util-linux, e2fsprogs, xfsprogs, eatmydata and a kernel with loop devices and xfs";

/// What the data directory lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Ext4,
    Xfs,
    /// ext4 on a disk that keeps what it was given in a cache of its own, until it is told to flush, and loses it.
    Ext4BehindCache,
}

/// Runs a test in a process of its own, with namespaces of its own: with the process goes all that it started, and with
/// that all that it mounted. Where that cannot be, says so and passes.
pub fn in_own_namespaces(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    if let Err(why) = run("unshare", &[NAMESPACES, &["true"]].concat()).and_then(|_| run("eatmydata", &["true"])) {
        return skip(&why);
    }
    let mut command = Command::new("unshare");
    command.args(NAMESPACES).arg(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--nocapture"]).env(INSIDE, "1").output().unwrap();
    eprint!("{}", String::from_utf8_lossy(&output.stdout));
    // Straight to the stream: why a test was passed over inside is to be seen.
    std::io::stderr().write_all(&output.stderr).unwrap();
    assert!(output.status.success(), "{test}: {}", output.status);
}

/// Says why a test is passed over, or fails where it has to run.
pub fn skip(why: &str) {
    let why = format!("no power was cut: {why}; {NEEDED}");
    assert!(std::env::var_os(REQUIRED).is_none(), "{why}, and {REQUIRED} is set");
    // Straight to the stream: what a passing test prints is not shown.
    let _ = writeln!(std::io::stderr(), "{why}");
}

/// A disk with a file system, and a clone of what it held at a moment. Fields are dropped in their order.
#[derive(Debug)]
pub struct Disk {
    form: Form,
    /// In the order in which they are unmounted.
    mounts: Vec<Mount>,
    /// The file system with reflinks.
    _holder: Mount,
    /// How often the power was cut: part of the name of the device's file.
    cuts: usize,
    directory: TempDir,
}

impl Disk {
    /// Makes an empty one.
    ///
    /// # Errors
    /// What this machine lacks for it.
    pub fn make(form: Form) -> Result<Self, String> {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("holder.img");
        make_file(&image, 2 << 30);
        run("mkfs.xfs", &["-q", "-m", "reflink=1", text(&image)])?;
        let holder = Mount::new(&image, &directory.path().join("holder"), false)?;
        let mut disk = Self { form, mounts: Vec::new(), _holder: holder, cuts: 0, directory };
        let device = disk.device();
        make_file(&device, 1 << 29);
        match form {
            Form::Ext4 => make_ext4(&device)?,
            Form::Xfs => run("mkfs.xfs", &["-q", "-s", "size=4096", text(&device)]).map(drop)?,
            Form::Ext4BehindCache => {
                make_ext4(&device)?;
                let _mounted = Mount::new(&device, &disk.cache(), true)?;
                make_file(&disk.cached_device(), 1 << 28);
                make_ext4(&disk.cached_device())?;
            }
        }
        disk.mount()?;
        Ok(disk)
    }

    /// Where its files are, as long as there is power.
    pub fn files(&self) -> PathBuf {
        self.directory.path().join("files")
    }

    /// Keeps what is on the disk at this moment, whatever is written meanwhile and later.
    pub fn clone_now(&self) {
        let clone = File::create(self.clone_of_device()).unwrap();
        rustix::fs::ioctl_ficlone(clone, File::open(self.device()).unwrap()).unwrap();
    }

    /// Goes back to what was kept last, as if the power had been cut at that moment and was there again. Nobody may
    /// have a file open.
    pub fn return_to_clone(&mut self) {
        self.mounts.clear();
        std::fs::remove_file(self.device()).unwrap();
        self.cuts += 1;
        self.mount().unwrap();
    }

    fn mount(&mut self) -> Result<(), String> {
        let mut device = self.device();
        if self.form == Form::Ext4BehindCache {
            self.mounts.push(Mount::new(&device, &self.cache(), true)?);
            device = self.cached_device();
        }
        // Without direct I/O what is written to the device stays in memory, above the disk that is cloned, until a
        // flush: that is the cache.
        let files = Mount::new(&device, &self.files(), self.form != Form::Ext4BehindCache)?;
        self.mounts.insert(0, files);
        Ok(())
    }

    fn device(&self) -> PathBuf {
        self.directory.path().join(format!("holder/disk.{}", self.cuts))
    }

    fn clone_of_device(&self) -> PathBuf {
        self.directory.path().join(format!("holder/disk.{}", self.cuts + 1))
    }

    fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    fn cached_device(&self) -> PathBuf {
        self.cache().join("disk")
    }
}

/// A file system that is mounted by a loop device, which goes with it.
#[derive(Debug)]
struct Mount {
    point: PathBuf,
}

impl Mount {
    fn new(image: &Path, point: &Path, is_direct: bool) -> Result<Self, String> {
        std::fs::create_dir_all(point).unwrap();
        let direct = if is_direct { "--direct-io=on" } else { "--direct-io=off" };
        let device = run("losetup", &["--find", "--show", direct, text(image)])?;
        let mounted = run("mount", &[device.trim(), text(point)]);
        // As long as it is mounted it stays; the kernel takes it away with the mount.
        run("losetup", &["--detach", device.trim()])?;
        mounted.map(|_| Self { point: point.to_owned() })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A file system whose file another lay in may be held for a moment yet by the device that the kernel is taking
        // away. Nothing uses it any more: it goes when that is done, or with the namespace of the test's process.
        let point = text(&self.point);
        let unmounted = run("umount", &[point]).or_else(|_| run("umount", &["--lazy", point]));
        assert!(unmounted.is_ok() || std::thread::panicking(), "{unmounted:?}");
    }
}

fn make_ext4(image: &Path) -> Result<(), String> {
    run("mkfs.ext4", &["-q", "-b", "4096", "-E", "lazy_itable_init=0", text(image)]).map(drop)
}

/// An empty file, which takes room as it is written.
fn make_file(path: &Path, bytes: u64) {
    File::create(path).and_then(|file| file.set_len(bytes)).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a tool; gives what it says, or why it failed.
fn run(tool: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(tool).args(arguments).output().map_err(|error| format!("{tool}: {error}"))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
}
