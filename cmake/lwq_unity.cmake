# Compiled as one: of each library the files of a folder, some at a time, so that the headers that they
# share are read, and the templates that they share compiled, once. The preset `dev` compiles each file for
# itself, so a file still has to include what it uses. Two files of a unit must not have one name in their
# unnamed namespaces, which tests/lint/unit_rules_test.cc checks.
option(LWQ_UNITY "Compile the files of a folder as one" OFF)
if(NOT LWQ_UNITY)
  return()
endif()
# For this warning what a unit includes is a header, which may not use a type of an unnamed namespace.
target_compile_options(lwq_options INTERFACE -Wno-subobject-linkage)

# Names that many files have for themselves, as what is registered has its options; no header may have
# them. In a unit each file's are its own.
set(lwq_local_names FindById Quoted BytesOf kElementsAtOnce kEvidence kFeatureMultiple kLargeBlock kMaxGroupSize
    kMaxPassTokens kMaxPositions kMaxTokenBytes kOptions kRowsPerTask kSmallBlock
    file_default_instances schemas)

# lwq_unity(TARGET [SIZE n] [FOLDERS ...] [ALONE a.cc ...] [LOCAL name ...] [OPTIONS ...]): the target's
# files of these folders (of its own when left out) in units of at most `n` files, those that stay alone
# excepted. LOCAL: as lwq_local_names, in this target. All of them are compiled with OPTIONS besides.
function(lwq_unity target)
  cmake_parse_arguments(A "" "SIZE" "FOLDERS;ALONE;LOCAL;OPTIONS" ${ARGN})
  get_target_property(sources ${target} SOURCES)
  get_target_property(root ${target} SOURCE_DIR)
  if(NOT A_SIZE)
    set(A_SIZE 16)
  endif()
  if(NOT A_FOLDERS)
    set(A_FOLDERS ".")
  endif()
  foreach(folder ${A_FOLDERS})
    set(files)
    foreach(source ${sources})
      cmake_path(ABSOLUTE_PATH source BASE_DIRECTORY ${root} OUTPUT_VARIABLE path)
      cmake_path(GET path PARENT_PATH parent)
      cmake_path(GET path FILENAME name)
      cmake_path(ABSOLUTE_PATH folder BASE_DIRECTORY ${root} NORMALIZE OUTPUT_VARIABLE wanted)
      string(REGEX REPLACE "/$" "" wanted "${wanted}")
      cmake_path(COMPARE "${parent}" EQUAL "${wanted}" is_there)
      if(is_there AND path MATCHES "\\.cc$")
        if(name IN_LIST A_ALONE)
          set_source_files_properties(${path} TARGET_DIRECTORY ${target} PROPERTIES COMPILE_OPTIONS "${A_OPTIONS}")
        else()
          list(APPEND files ${path})
        endif()
      endif()
    endforeach()
    cmake_path(GET wanted FILENAME stem)
    lwq_units(${target} ${stem} ${A_SIZE} "${A_OPTIONS}" "${lwq_local_names};${A_LOCAL}" "${files}")
  endforeach()
endfunction()

# Writes the units of `files` and puts them in the files' place.
function(lwq_units target stem size options local_names files)
  list(LENGTH files num_files)
  # Units of about one size each.
  math(EXPR num_units "(${num_files} + ${size} - 1) / ${size}")
  set(file_index 0)
  foreach(file ${files})
    math(EXPR unit_index "${file_index} * ${num_units} / ${num_files}")
    foreach(name ${local_names})
      string(APPEND text_${unit_index} "#undef ${name}\n#define ${name} ${name}_${file_index}\n")
    endforeach()
    string(APPEND text_${unit_index} "#include \"${file}\"\n")
    math(EXPR file_index "${file_index} + 1")
  endforeach()
  set(unit_index 0)
  while(unit_index LESS num_units)
    set(unit ${CMAKE_BINARY_DIR}/unity/${target}/${stem}${unit_index}.cc)
    file(CONFIGURE OUTPUT ${unit} CONTENT "${text_${unit_index}}" @ONLY)
    set_source_files_properties(${unit} TARGET_DIRECTORY ${target} PROPERTIES COMPILE_OPTIONS "${options}")
    target_sources(${target} PRIVATE ${unit})
    math(EXPR unit_index "${unit_index} + 1")
  endwhile()
  if(files)
    set_source_files_properties(${files} TARGET_DIRECTORY ${target} PROPERTIES HEADER_FILE_ONLY ON)
  endif()
endfunction()

# Code that waits for others, reads and writes: how fast it runs shows nowhere.
foreach(target lwq_rpc lwq_metrics lwq_records lwq_worker lwq_runner lwq_dispatch lwq_blob lwq_backup lwq_hub)
  lwq_unity(${target} OPTIONS -O1)
endforeach()
lwq_unity(lwq_store LOCAL kDialect OPTIONS -O1)
lwq_unity(lwq_service LOCAL IdOf Removal WriteOf kMaxWaitSeconds kPage kServiceName OPTIONS -O1)
lwq_unity(lwq-server LOCAL kExitConfiguration kExitIo OPTIONS -O1)
lwq_unity(lwq_client ALONE flags.cc LOCAL CheckFile ShortId kIdleLimit kTailBytes OPTIONS -O1)
lwq_unity(lwq_client_commands LOCAL Change List Print Remove Run Show TableText kAdvice kFlags kSubcommands
          OPTIONS -O1)
lwq_unity(lwq_proto SIZE 32 FOLDERS ${CMAKE_BINARY_DIR}/proto/lwq/v1 OPTIONS -O1)
lwq_unity(lwq_engine FOLDERS io model evidence score eval artifact OPTIONS -O1)
# What computes keeps its flags.
lwq_unity(lwq_engine FOLDERS quant tokenizer device)
lwq_unity(lwq_plan ALONE gguf_artifact.cc gptq_artifact.cc)
lwq_unity(lwq_format)
lwq_unity(lwq_gguf LOCAL AddedTokens AppendNumber FieldOf FloatsOf Invalid SetChatTemplates StepsOf Unsupported)
# Half of the time of files with CLI11's templates would go into optimising them.
lwq_unity(lwq_base ALONE settings.cc OPTIONS -O1)
set(plain COMPILE_OPTIONS -O0 SKIP_PRECOMPILE_HEADERS ON)
set_source_files_properties(${CMAKE_SOURCE_DIR}/base/settings.cc TARGET_DIRECTORY lwq_base PROPERTIES ${plain})
set_source_files_properties(${CMAKE_SOURCE_DIR}/client/flags.cc TARGET_DIRECTORY lwq_client PROPERTIES ${plain})
set_source_files_properties(${CMAKE_SOURCE_DIR}/worker/main.cc TARGET_DIRECTORY lwq-worker PROPERTIES ${plain})
