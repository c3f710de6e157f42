// Reads an AsyncAPI document and writes what its parser finds in it, as JSON. npm exec puts the folder of the packages that it
// was asked for first in PATH; they are not beside this file.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { delimiter, join } from "node:path";

const [folder] = process.env.PATH.split(delimiter);
const { Parser } = createRequire(join(folder, "any"))("@asyncapi/parser");
const found = await new Parser().validate(readFileSync(0, "utf8"));
console.log(JSON.stringify(found.map(({ severity, path, message }) => ({ severity, path: path.join("."), message }))));
