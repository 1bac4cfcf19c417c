// Unpacks what @sparticuz/chromium ships (a headless Chromium, the libraries that it needs, fonts) into the folder
// `chromium`, so that neither root nor a package of the system is needed. That package's own code does it in a folder
// that all users of a machine share, and trusts what it finds there.

import { execFileSync } from "node:child_process";
import { chmodSync, createReadStream, createWriteStream, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { createBrotliDecompress } from "node:zlib";

const folder = process.argv[2];
const packed = join(folder, "node_modules/@sparticuz/chromium/bin");
const unpacked = join(folder, "chromium");

async function unpack(name) {
    const file = join(unpacked, name);
    await pipeline(createReadStream(join(packed, `${name}.br`)), createBrotliDecompress(), createWriteStream(file));
    return file;
}

mkdirSync(unpacked);
for (const name of ["al2023.tar", "fonts.tar"]) {
    const archive = await unpack(name);
    execFileSync("tar", ["-xf", archive, "-C", unpacked, "--no-same-owner"]);
    rmSync(archive);
}
chmodSync(await unpack("chromium"), 0o755);
// It would otherwise be there twice, 65 MiB of it packed.
rmSync(packed, { recursive: true });
