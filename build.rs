//! Compiles ggml from the Cargo package that Cargo.toml pins, and our own kernels beside it.
//!
//! The archive lies outside `OUT_DIR`, under a name that is a hash of everything that went into
//! it, so that dev, release and test builds share one compile and a change in `src/` runs none.
//! Reasons and measurements: ggml/README.md.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

mod sources {
    include!("ggml/sources.rs");
}

const PACKAGE: &str = "llama-cpp-sys-2";

fn main() {
    for path in ["build.rs", "Cargo.toml", "Cargo.lock", "ggml"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for name in ["GEMMA3N_MARCH", "GEMMA3N_GGML_CACHE", "CC", "CXX"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let manifest = PathBuf::from(var("CARGO_MANIFEST_DIR"));
    let ggml = package_dir(&manifest).join("llama.cpp").join("ggml");
    let target = Target::detect();
    println!("cargo::rustc-env=GEMMA3N_GGML_VERSION={}", sources::VERSION);
    println!("cargo::rustc-env=GEMMA3N_MARCH_FLAG={}", target.march);

    #[cfg(feature = "bindgen")]
    generate_bindings(&manifest, &ggml);

    build_archives(&manifest, &ggml, &target);
    let cpp = if target.os == "macos" { "c++" } else { "stdc++" };
    println!("cargo::rustc-link-lib={cpp}");
    if target.os == "linux" {
        println!("cargo::rustc-link-lib=m");
        println!("cargo::rustc-link-lib=pthread");
    }
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo did not set {name}"))
}

/// The folder of the pinned package in Cargo's own store (registry, vendor folder, …).
fn package_dir(manifest: &Path) -> PathBuf {
    let output = Command::new(var("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1", "--manifest-path"])
        .arg(manifest.join("Cargo.toml"))
        .output()
        .expect("cargo metadata can be run");
    assert!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    // Cargo's compact JSON starts each package with its name and version; the first manifest path after them
    // is its own. A JSON parser here would be one more build dependency for two strings.
    let start = text
        .find(&format!("{{\"name\":\"{PACKAGE}\",\"version\""))
        .unwrap_or_else(|| panic!("{PACKAGE} is not among the locked packages"));
    let key = "\"manifest_path\":\"";
    let at = text[start..].find(key).expect("a package has a manifest path") + start + key.len();
    let end = text[at..].find('"').expect("a JSON string ends") + at;
    let path = text[at..end].replace("\\\\", "\\").replace("\\/", "/");
    Path::new(&path).parent().expect("a manifest lies in a folder").to_path_buf()
}

struct Target {
    os: String,
    arch: String,
    /// The compiler flag that chooses the instruction set of the CPU files and our kernels.
    march: String,
}

impl Target {
    fn detect() -> Self {
        let os = var("CARGO_CFG_TARGET_OS");
        let arch = var("CARGO_CFG_TARGET_ARCH");
        let native = var("HOST") == var("TARGET");
        let march = match (env::var("GEMMA3N_MARCH"), arch.as_str()) {
            (Ok(value), "aarch64") => format!("-mcpu={value}"),
            (Ok(value), _) => format!("-march={value}"),
            (Err(_), "aarch64") if native => "-mcpu=native".to_owned(),
            (Err(_), "aarch64") => "-march=armv8.2-a+dotprod+fp16".to_owned(),
            (Err(_), _) if native => "-march=native".to_owned(),
            (Err(_), _) => "-march=x86-64-v3".to_owned(),
        };
        Self { os, arch, march }
    }
}

/// Two archives, so that a change in our kernels leaves ggml's alone: neither calls the other.
fn build_archives(manifest: &Path, ggml: &Path, target: &Target) {
    let cache = cache_root();
    let generated = cache.join(format!("ggml-version-{}", sources::VERSION));
    write_version_header(&generated);
    let src = ggml.join("src");
    let kernels = manifest.join("ggml").join("kernels");
    let arch = if target.arch == "aarch64" { sources::CPU_ARM } else { sources::CPU_X86 };
    let under = |folder: &Path, files: &[&str]| -> Vec<PathBuf> {
        files.iter().map(|file| folder.join(file)).collect()
    };

    let mut headers = files_with("h", &src);
    headers.extend(files_with("h", &src.join("ggml-cpu")));
    headers.extend(files_with("h", &ggml.join("include")));
    let mut includes = under(ggml, sources::INCLUDES);
    includes.push(generated);
    let mut cpu = under(&src, sources::CPU);
    cpu.extend(under(&src, arch));
    Archive {
        name: "ggml",
        portable: under(&src, sources::BASE),
        native: cpu,
        headers,
        includes,
        defines: sources::DEFINES,
    }
    .build(&cache, target);
    Archive {
        name: "gemma3n-kernels",
        portable: Vec::new(),
        native: under(&kernels, sources::KERNELS),
        headers: files_with("h", &kernels),
        includes: vec![kernels.clone()],
        defines: &[],
    }
    .build(&cache, target);
}

struct Archive {
    name: &'static str,
    /// Compiled for the baseline instruction set.
    portable: Vec<PathBuf>,
    /// Compiled for the machine's own (`Target::march`).
    native: Vec<PathBuf>,
    headers: Vec<PathBuf>,
    includes: Vec<PathBuf>,
    defines: &'static [(&'static str, Option<&'static str>)],
}

impl Archive {
    /// Compiles the archive, unless one of the same content is there, and tells cargo to link it.
    fn build(&self, cache: &Path, target: &Target) {
        let name = self.name;
        let folder = cache.join(format!("{name}-{}", self.key(target)));
        println!("cargo::rustc-link-search=native={}", folder.display());
        println!("cargo::rustc-link-lib=static={name}");
        let file = format!("lib{name}.a");
        if folder.join(&file).exists() {
            return;
        }
        // Compiled aside and renamed: two cargo calls at once must not see half an archive.
        let work = folder.with_extension(std::process::id().to_string());
        fs::create_dir_all(&work).unwrap_or_else(|e| panic!("{}: {e}", work.display()));
        let mut objects = Vec::new();
        for (files, native) in [(&self.portable, false), (&self.native, true)] {
            for cpp in [false, true] {
                let mut build = self.compiler(target, cpp, native);
                let ours =
                    files.iter().filter(|f| (f.extension() == Some(OsStr::new("cpp"))) == cpp);
                objects.extend(build.out_dir(&work).files(ours).compile_intermediates());
            }
        }
        let mut archive = self.compiler(target, true, true);
        archive.out_dir(&work).objects(&objects);
        archive.compile(name);
        if fs::rename(&work, &folder).is_err() {
            assert!(folder.join(&file).exists(), "{}: cannot be written", folder.display());
            fs::remove_dir_all(&work).ok();
        }
    }

    fn compiler(&self, target: &Target, cpp: bool, native: bool) -> cc::Build {
        let mut build = cc::Build::new();
        build.cpp(cpp).std(if cpp { "c++17" } else { "c11" });
        // A dev profile would give -O0 and another cache key; both are unwanted here.
        build.opt_level(3).debug(false).warnings(false).force_frame_pointer(false);
        build.cargo_metadata(false).includes(&self.includes);
        let linux: &[(&str, Option<&str>)] =
            if target.os == "linux" { sources::DEFINES_LINUX } else { &[] };
        for (name, value) in self.defines.iter().chain(linux) {
            build.define(name, *value);
        }
        if native {
            build.flag(&target.march);
        } else {
            // The quantizers give upstream's very bytes only without fused multiply-adds.
            build.flag("-ffp-contract=off");
        }
        build
    }

    /// A hash of all that goes in: sources, flags, the compiler and what its flags mean here.
    fn key(&self, target: &Target) -> String {
        let mut hasher = DefaultHasher::new();
        for (cpp, native) in [(false, false), (false, true), (true, false), (true, true)] {
            let compiler = self.compiler(target, cpp, native).get_compiler();
            compiler.path().hash(&mut hasher);
            compiler.args().hash(&mut hasher);
            compiler_macros(&compiler).hash(&mut hasher);
        }
        for file in self.portable.iter().chain(&self.native).chain(&self.headers) {
            file.file_name().hash(&mut hasher);
            fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).hash(&mut hasher);
        }
        format!("{:016x}", hasher.finish())
    }
}

/// `GEMMA3N_GGML_CACHE`, else the target folder: the ancestor of `OUT_DIR` that cargo tagged.
fn cache_root() -> PathBuf {
    if let Some(folder) = env::var_os("GEMMA3N_GGML_CACHE") {
        return PathBuf::from(folder);
    }
    let out = PathBuf::from(var("OUT_DIR"));
    out.ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists())
        .unwrap_or(&out)
        .to_path_buf()
}

fn write_version_header(folder: &Path) {
    let file = folder.join("ggml-version.h");
    let text = format!(
        "#define GGML_VERSION \"{}\"\n#define GGML_COMMIT \"{PACKAGE}\"\n",
        sources::VERSION
    );
    if fs::read_to_string(&file).is_ok_and(|old| old == text) {
        return;
    }
    fs::create_dir_all(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    fs::write(&file, text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
}

/// What `-march=native` means here and now, so that a cached archive never crosses machines.
fn compiler_macros(compiler: &cc::Tool) -> Vec<u8> {
    compiler
        .to_command()
        .args(["-dM", "-E", "-x", "c++", "/dev/null"])
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default()
}

fn files_with(extension: &str, folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension() == Some(OsStr::new(extension)))
        .collect();
    found.sort();
    found
}

#[cfg(feature = "bindgen")]
fn generate_bindings(manifest: &Path, ggml: &Path) {
    let list = fs::read_to_string(manifest.join("ggml/functions.txt")).expect("ggml/functions.txt");
    let mut builder = bindgen::Builder::default()
        .header(manifest.join("ggml/bindings.h").to_string_lossy())
        .clang_arg(format!("-I{}", ggml.join("include").display()))
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .generate_comments(false)
        .merge_extern_blocks(true);
    if let Ok(folder) = env::var("GEMMA3N_CLANG_INCLUDE") {
        builder = builder.clang_arg(format!("-I{folder}"));
    }
    for name in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        builder = builder.allowlist_function(name);
    }
    let file = manifest.join("ggml/bindings.rs");
    let bindings = builder.generate().expect("libclang reads ggml's headers");
    bindings.write_to_file(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
}
