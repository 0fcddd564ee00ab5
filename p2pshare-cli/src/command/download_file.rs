//! `download_file`: fetches a file, resuming where an earlier attempt stopped. Ctrl-C keeps what is there.

use std::path::{Path, PathBuf};

use p2pshare::FileName;

use crate::args::DownloadFile;
use crate::context::{Context, unexpected};
use crate::control::{DownloadRequest, Downloaded, Outcome, Request};
use crate::failure::Failure;
use crate::{render, transfer};

pub(crate) async fn run(context: &Context, args: DownloadFile) -> Result<String, Failure> {
    let dest = destination(args.dest.as_deref(), &args.name);
    let request = Request::Download(DownloadRequest {
        group: args.group,
        name: args.name,
        dest: transfer::absolute(&dest)?.as_path().into(),
        force: args.force,
        sha256: args.sha256,
        wait: args.wait,
        in_order: args.in_order,
    });
    match transfer::ask_with_progress(context, &request).await? {
        Outcome::Downloaded(downloaded) => Ok(report(&dest, &downloaded)),
        other => Err(unexpected(&other)),
    }
}

/// Where the file goes: a folder keeps its name, and so does the current one by default.
fn destination(chosen: Option<&Path>, name: &FileName) -> PathBuf {
    match chosen {
        None => PathBuf::from(name.as_str()),
        Some(dest) if dest.is_dir() || dest.as_os_str().as_encoded_bytes().ends_with(b"/") => {
            dest.join(name.as_str())
        }
        Some(dest) => dest.to_owned(),
    }
}

fn report(dest: &Path, downloaded: &Downloaded) -> String {
    let mut text = format!("Download complete: {}\n", dest.display());
    if downloaded.was_there {
        text += &format!("  {} bytes, which were there already\n", downloaded.bytes);
    } else {
        let moved = render::moved(downloaded.bytes, downloaded.elapsed);
        text += &format!("  {} bytes, {moved}\n", downloaded.bytes);
    }
    if downloaded.chunks_resumed > 0 {
        let (resumed, total) = (downloaded.chunks_resumed, downloaded.chunks_total);
        text += &format!("  resumed: skipped {resumed} of {total} chunks already verified\n");
    }
    text += "  file id verified";
    if downloaded.sha256_checked {
        text += "\n  SHA-256 verified";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_the_name_of_the_file() {
        let temp = tempfile::tempdir().unwrap();
        let name = FileName::new("big.iso").unwrap();
        assert_eq!(destination(None, &name), Path::new("big.iso"));
        assert_eq!(
            destination(Some(temp.path()), &name),
            temp.path().join("big.iso")
        );
        assert_eq!(
            destination(Some(Path::new("not/there/")), &name),
            Path::new("not/there/big.iso")
        );
        assert_eq!(
            destination(Some(Path::new("other.iso")), &name),
            Path::new("other.iso")
        );
    }
}
