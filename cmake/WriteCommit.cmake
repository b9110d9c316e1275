# cmake -DSOURCE=folder -DOUTPUT=file -P WriteCommit.cmake: writes the commit of a checkout as a header, when it changed.
cmake_minimum_required(VERSION 3.25)  # a script has no policies of its own
set(_commit "")
find_program(_git git)
if(_git)
  execute_process(COMMAND "${_git}" -C "${SOURCE}" describe --always --abbrev=12 --exclude=* --dirty=+
    OUTPUT_VARIABLE _commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
file(CONFIGURE OUTPUT "${OUTPUT}" @ONLY CONTENT "#define NANOCHAT_COMMIT \"@_commit@\"\n")
