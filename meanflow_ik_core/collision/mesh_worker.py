# SPDX-License-Identifier: Apache-2.0
"""A program that reads mesh files with Coal, for a process that must survive them.

Some damaged files end the process that reads them, and some are read for ever. It takes a line
"path<tab>output" for each mesh, writes corners and triangles to the output, and answers with a
line: "ok", or what is wrong. It imports nothing of the package, and runs by its path.
"""

import os
import resource
import sys


def main() -> None:
    # What Coal and its reader print goes nowhere; a copy of the output is for answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.path.pop(0)  # the folder of this file
    memory = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import coal
    import numpy as np

    for line in sys.stdin:
        path, _, output = line.rstrip("\n").partition("\t")
        try:
            mesh = coal.MeshLoader().load(path, np.ones(3))
            faces = [mesh.tri_indices(index) for index in range(mesh.num_tris)]
            # Coal's triangles have no end to iterate to
            triangles = np.array([(f[0], f[1], f[2]) for f in faces], np.int64).reshape(-1, 3)
            with open(output, "wb") as file:
                np.savez(file, corners=np.array(mesh.vertices()), triangles=triangles)
            said = "ok"
        except BaseException as error:  # memory and Coal's own as well
            said = " ".join(str(error).split()) or type(error).__name__
        answers.write(said[:500] + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
